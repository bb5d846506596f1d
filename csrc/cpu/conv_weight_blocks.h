// The weight of a convolution, read in the order in which it lies, in parts that the products put where they want them.
#pragma once
#include <ATen/core/Tensor.h>

#include <algorithm>

#include "cpu/gemm.h"
#include "cpu/memory.h"
#include "cpu/tasks.h"
#include "cpu/vectors.h"

namespace fastgan {

// A weight (C_small, C_big, kH, kW), times a factor, read a few channels of a panel at a time: a gather sums over the
// big channels, a scatter over the small ones.
template <typename T>
class WeightBlocks {
 public:
  static constexpr int64_t kChannels = 8;

  WeightBlocks(const at::Tensor& weight, T scale, bool scatter, int64_t columns)
      : scatter_(scatter),
        scale_(scale),
        columns_(columns),
        in_(weight.size(scatter ? 0 : 1)),
        out_(weight.size(scatter ? 1 : 0)),
        taps_(weight.size(2) * weight.size(3)),
        dense_(is_read(weight) ? weight : weight.to(c10::CppTypeToScalarType<T>::value)) {
    const bool last = dense_.is_contiguous(at::MemoryFormat::ChannelsLast);
    if (!last) dense_ = dense_.contiguous();
    const int64_t big = weight.size(1), small_stride = big * taps_, big_stride = last ? 1 : taps_;
    tap_stride_ = last ? big : 1;
    in_stride_ = scatter ? small_stride : big_stride;
    out_stride_ = scatter ? big_stride : small_stride;
    data_ = static_cast<const char*>(dense_.const_data_ptr());
  }

  // Calls f(j0, j1, c0, c1) for panels and at most kChannels channels that are to be read together, on all threads.
  template <typename F>
  void each(F f) const {
    each_of(kChannels, f);
  }
  // The same for taps, which are read one by one; in a gather all channels together.
  template <typename F>
  void each_by_taps(F f) const {
    each_of(scatter_ ? kChannels : in_, f);
  }

  // Channels [c0, c1) of panel j: [channel][tap][columns], zeros in columns that are not there. Of this thread.
  const T* read(int64_t j, int64_t c0, int64_t c1) const {
    T* const block = scratch<T, 8>(kChannels * taps_ * columns_);
    if (!is_whole(j)) std::fill_n(block, (c1 - c0) * taps_ * columns_, T(0));
    // what lies side by side is read side by side
    if (tap_stride_ == 1 && in_stride_ == taps_) {
      load(j, c0, 0, (c1 - c0) * taps_, 1, block, columns_);
    } else if (in_stride_ == 1) {
      for (int64_t t = 0; t < taps_; ++t) load(j, c0, t, c1 - c0, 1, block + t * columns_, taps_ * columns_);
    } else {
      for (int64_t c = c0; c < c1; ++c) {
        load(j, c, 0, taps_, tap_stride_, block + (c - c0) * taps_ * columns_, columns_);
      }
    }
    multiply((c1 - c0) * taps_ * columns_, block);
    return block;
  }

  // Whether the channels of a tap lie side by side.
  bool by_taps() const { return tap_stride_ != 1 || taps_ == 1; }
  // Channels [c0, c1) of panel j for one tap: [channel][columns].
  void read_tap(int64_t j, int64_t tap, int64_t c0, int64_t c1, T* to) const {
    if (!is_whole(j)) std::fill_n(to, (c1 - c0) * columns_, T(0));
    load(j, c0, tap, c1 - c0, in_stride_, to, columns_);
    multiply((c1 - c0) * columns_, to);
  }

 private:
  // Whether the loops convert this type to T.
  static bool is_read(const at::Tensor& t) { return sizeof(T) == sizeof(float) && storage_of(t) != Storage::exact; }

  // In the order in which they lie.
  template <typename F>
  void each_of(int64_t most, F f) const {
    const int64_t panels = (out_ + columns_ - 1) / columns_, steps = (in_ + most - 1) / most;
    auto step = [&](int64_t j0, int64_t j1, int64_t s) { f(j0, j1, s * most, std::min((s + 1) * most, in_)); };
    if (scatter_) return share_tasks(steps, taps_ * most * out_, [&](int64_t s) { step(0, panels, s); });
    share_tasks(panels, taps_ * in_ * columns_, [&](int64_t j) {
      for (int64_t s = 0; s < steps; ++s) step(j, j + 1, s);
    });
  }

  void multiply(int64_t n, T* values) const {
    for (int64_t i = 0; scale_ != T(1) && i < n; ++i) values[i] *= scale_;
  }

  // Columns of panel j that are there, and whether all are.
  int64_t valid(int64_t j) const { return std::min(columns_, out_ - j * columns_); }
  bool is_whole(int64_t j) const { return valid(j) == columns_; }

  // From a tap of a channel on `count` rows of columns, `step` apart.
  void load(int64_t j, int64_t c, int64_t tap, int64_t count, int64_t step, T* to, int64_t stride) const {
    const int64_t place = j * columns_ * out_stride_ + c * in_stride_ + tap * tap_stride_;
    const char* from = data_ + place * dense_.element_size();
    gemm_.load(storage_of(dense_), from, {count, valid(j), step, out_stride_}, to, stride);
  }

  const Gemm<T> gemm_ = gemm<T>();
  bool scatter_;
  T scale_;
  int64_t columns_, in_, out_, taps_, tap_stride_, in_stride_, out_stride_;
  at::Tensor dense_;
  const char* data_;
};

}  // namespace fastgan
