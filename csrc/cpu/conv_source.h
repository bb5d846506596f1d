// What a convolution loads: pixels of a tensor in any layout, converted to the accumulation type, normalised and
// activated or masked on the way, with zeros around them.
#pragma once
#include <ATen/core/Tensor.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "cpu/gemm.h"
#include "cpu/memory.h"
#include "cpu/vectors.h"

namespace fastgan {

// A tensor (N, C, H, W) by its strides.
struct Image {
  char* data;
  Storage storage;
  int64_t item, samples, channels, height, width, strides[4];

  explicit Image(const at::Tensor& x)
      : data(static_cast<char*>(const_cast<void*>(x.const_data_ptr()))),
        storage(storage_of(x)),
        item(x.element_size()),
        samples(x.size(0)),
        channels(x.size(1)),
        height(x.size(2)),
        width(x.size(3)),
        strides{x.stride(0), x.stride(1), x.stride(2), x.stride(3)} {}

  char* at(int64_t n, int64_t h, int64_t w) const {
    return data + (n * strides[0] + h * strides[2] + w * strides[3]) * item;
  }
  // `count` pixels of a row, every `step`th.
  Pixels pixels(int64_t count, int64_t step = 1) const { return {count, channels, strides[3] * step, strides[1]}; }
};

// A loop of loops.h over dense [pixels][channels], with per-channel vectors repeated so that rows are not too short.
template <typename T>
class PixelLoop {
 public:
  PixelLoop() = default;
  PixelLoop(Pass pass, Activation activation, double slope, int64_t channels)
      : loop_(loop<T>({pass, activation, Storage::exact, true, false})),
        channels_(channels),
        lanes_(std::max<int64_t>(1, 256 / channels) * channels) {
    span_.negative_slope = T(slope);
    mean_.assign(lanes_, T(0));
    scale_.assign(lanes_, T(1));
    shift_.assign(lanes_, T(0));
  }
  void set(const std::vector<T>& mean, const std::vector<T>& scale, const std::vector<T>& shift) {
    for (int64_t i = 0; i < lanes_; ++i) {
      mean_[i] = mean[i % channels_];
      scale_[i] = scale[i % channels_];
      shift_[i] = shift[i % channels_];
    }
  }
  explicit operator bool() const { return loop_ != nullptr; }

  // x and dy are dense; out may be one of them.
  void operator()(int64_t elements, const T* x, const T* dy, T* out) const {
    Span<T> s = span_;
    s.mean = mean_.data(), s.scale = scale_.data(), s.shift = shift_.data();
    s.x = x, s.dy = dy, s.out[0] = out;
    s.rows = elements / lanes_, s.width = s.stride = lanes_;
    if (s.rows > 0) loop_(s);
    const int64_t done = s.rows * lanes_;
    s.rows = 1, s.width = elements - done;
    s.x = x + done, s.dy = dy == nullptr ? nullptr : dy + done, s.out[0] = out + done;
    if (s.width > 0) loop_(s);
  }

 private:
  Loop<T> loop_ = nullptr;
  int64_t channels_ = 1, lanes_ = 1;
  Span<T> span_{};
  std::vector<T> mean_, scale_, shift_;
};

template <typename T>
class Source {
 public:
  explicit Source(const at::Tensor& x) : image(x) {}

  // act(norm(x)) by the given statistics.
  void normalise(const std::optional<at::Tensor>& weight, const std::optional<at::Tensor>& bias, const at::Tensor& mean,
                 const at::Tensor& var, double eps, Activation activation, double slope) {
    auto scale = to_vector<T>(weight, image.channels, T(1));
    const auto var_ = to_vector<T>(var);
    for (size_t c = 0; c < scale.size(); ++c) scale[c] *= T(1 / std::sqrt(double(var_[c]) + eps));
    loop_ = PixelLoop<T>(Pass::forward, activation, slope, image.channels);
    loop_.set(to_vector<T>(mean), scale, to_vector<T>(bias, image.channels, T(0)));
  }

  // x a'(y), y the activation's result.
  void mask(const at::Tensor& y, Activation activation, double slope) {
    mask_.emplace_back(y);
    loop_ = PixelLoop<T>(Pass::saved_bwd, activation, slope, image.channels);
  }

  // Rows h0, h0 + step, ... of samples [n0, n1), columns [w0, w0 + width), dense, with zeros outside the tensor.
  void load(const Gemm<T>& gemm, int64_t n0, int64_t n1, int64_t h0, int64_t rows, int64_t step, int64_t w0,
            int64_t width, T* to) const {
    const int64_t c = image.channels;
    const Inside in = inside_of(w0, width);
    const int64_t left = in.left, inside = in.count;
    for (int64_t n = n0; n < n1; ++n, to += rows * width * c) {
      auto each_row = [&](auto f) {
        for (int64_t r = 0; r < rows; ++r) f(h0 + r * step, to + r * width * c);
      };
      each_row([&](int64_t h, T* row) {
        const bool empty = h < 0 || h >= image.height;
        std::fill_n(row, (empty ? width : left) * c, T(0));
        if (!empty) std::fill_n(row + (left + inside) * c, (width - left - inside) * c, T(0));
      });
      T* y = mask_.empty() ? nullptr : scratch<T, 3>(rows * width * c);
      const int64_t skip = left * c;
      copy(gemm, image, n, w0 + left, inside, each_row, [&](T* row) { return row + skip; });
      if (!loop_) continue;
      if (y != nullptr) {
        copy(gemm, mask_[0], n, w0 + left, inside, each_row, [&](T* row) { return y + (row - to) + skip; });
      }
      each_row([&](int64_t h, T* row) {
        if (h < 0 || h >= image.height) return;
        T* values = row + skip;
        if (y == nullptr) {
          loop_(inside * c, values, nullptr, values);
        } else {
          loop_(inside * c, y + (values - to), values, values);
        }
      });
    }
  }

  // The same as bfloat16; what is such, and is loaded as it is, has only to be copied.
  void load_terms(const Gemm<T>& gemm, int64_t n0, int64_t n1, int64_t h0, int64_t rows, int64_t step, int64_t w0,
                  int64_t width, uint16_t* to) const {
    const int64_t c = image.channels;
    if (loop_ || image.storage != Storage::bfloat16 || image.strides[1] != 1) {
      // a row stays in the first-level cache; where channels are outermost, rows are read together
      const bool innermost = image.strides[1] == 1 && (mask_.empty() || mask_[0].strides[1] == 1);
      const int64_t some = innermost ? 1 : rows, values = some * width * c;
      T* exact = scratch<T, 16>(values);
      for (int64_t n = n0; n < n1; ++n) {
        for (int64_t r = 0; r < rows; r += some, to += values) {
          load(gemm, n, n + 1, h0 + r * step, some, step, w0, width, exact);
          gemm.store(Storage::bfloat16, exact, 1, to, {values, 1, 1, 1});
        }
      }
      return;
    }
    const Inside in = inside_of(w0, width);
    const int64_t left = in.left, inside = in.count;
    for (int64_t n = n0; n < n1; ++n) {
      for (int64_t r = 0; r < rows; ++r, to += width * c) {
        const int64_t h = h0 + r * step;
        const bool empty = h < 0 || h >= image.height || inside == 0;
        std::fill_n(to, (empty ? width : left) * c, uint16_t(0));
        if (empty) continue;
        copy_row(n, h, w0 + left, inside, to + left * c);
        std::fill_n(to + (left + inside) * c, (width - left - inside) * c, uint16_t(0));
      }
    }
  }

  Image image;

 private:
  // Of the columns [w0, w0 + width): how many lie before the tensor, and how many in it.
  struct Inside {
    int64_t left, count;
  };
  Inside inside_of(int64_t w0, int64_t width) const {
    const int64_t left = std::clamp<int64_t>(-w0, 0, width);
    return {left, std::max<int64_t>(0, std::min(width, image.width - w0) - left)};
  }

  void copy_row(int64_t n, int64_t h, int64_t w, int64_t width, uint16_t* to) const {
    const int64_t c = image.channels;
    if (image.strides[3] == c) return void(std::memcpy(to, image.at(n, h, w), size_t(width * c * image.item)));
    for (int64_t i = 0; i < width; ++i) std::memcpy(to + i * c, image.at(n, h, w + i), size_t(c * image.item));
  }

  // Rows of one sample to where place(row) says. Where channels are outermost, 16 of them at a time: each is a stream
  // through neighbouring rows that the processor can foresee.
  template <typename Rows, typename Place>
  static void copy(const Gemm<T>& gemm, const Image& from, int64_t n, int64_t w, int64_t width, Rows each_row,
                   Place place) {
    const bool outer = from.strides[1] != 1;
    const int64_t block = outer ? 16 : from.channels;
    for (int64_t c = 0; c < from.channels; c += block) {
      Pixels pixels = from.pixels(width);
      pixels.channels = std::min(block, from.channels - c);
      each_row([&](int64_t h, T* row) {
        if (h < 0 || h >= from.height || width == 0) return;
        const char* in = from.at(n, h, w) + c * from.strides[1] * from.item;
        gemm.load(from.storage, in, pixels, place(row) + c, from.channels);
      });
    }
  }

  PixelLoop<T> loop_;
  std::vector<Image> mask_;
};

}  // namespace fastgan
