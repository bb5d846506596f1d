// Cuts a tensor (N, C, S) into tasks for the thread pool and into chunks that fit the cache, and runs loops over them.
// Tasks depend on the shape alone, never on the number of threads, so sums are the same for any number of threads.
#pragma once
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "cpu/span.h"

namespace fastgan {

// Elements of a chunk that is read in place, of one that is converted first, of a task, and lanes of a plane.
constexpr int64_t kDirect = 16384, kConverted = 8192, kTask = 32768, kPlaneLanes = 256;
// Rows after which float sums are added to the double totals.
constexpr int64_t kFoldRows = 64;

struct Operands {
  const char *x = nullptr, *dy = nullptr, *ddx = nullptr;
  char* out[2] = {nullptr, nullptr};
};

inline const char* data(const at::Tensor& t) { return static_cast<const char*>(t.const_data_ptr()); }
inline char* mutable_data(at::Tensor& t) { return static_cast<char*>(t.mutable_data_ptr()); }

template <typename T>
class Chunks {
 public:
  explicit Chunks(const at::Tensor& x) : item_(x.element_size()), channels_(x.size(1)) {
    outer_ = x.size(0);
    inner_ = x.numel() == 0 ? 0 : x.numel() / (outer_ * channels_);
    channels_inner_ = inner_ == 1 || channels_ == 1 || !x.is_contiguous();
    storage_ = x.scalar_type() == at::kBFloat16 ? Storage::bfloat16
               : x.scalar_type() == at::kHalf   ? Storage::float16
                                                : Storage::exact;
    const int64_t repeat = std::max<int64_t>(1, 512 / std::max<int64_t>(channels_, 1));
    lanes_ = channels_inner_ ? repeat * channels_ : kPlaneLanes;
  }

  Storage storage() const { return storage_; }
  bool channels_inner() const { return channels_inner_; }
  int64_t channels() const { return channels_; }
  int64_t lanes() const { return lanes_; }
  int64_t count() const { return outer_ * inner_; }

  // A per-channel vector laid out as the loops read it: repeated over the lanes, or as it is.
  std::vector<T> spread(const std::vector<T>& v) const {
    if (!channels_inner_ || v.empty()) return v;
    std::vector<T> wide(lanes_);
    for (int64_t i = 0; i < lanes_; ++i) wide[i] = v[i % channels_];
    return wide;
  }

  // Tasks: blocks of rows where channels are innermost, else channels.
  int64_t tasks() const {
    return count() == 0 ? 0 : channels_inner_ ? (count() + task_rows() - 1) / task_rows() : channels_;
  }
  int64_t first_channel(int64_t task) const { return channels_inner_ ? 0 : task; }

  template <typename Body>
  void parallel(Body body) const {
    const int64_t elements = channels_inner_ ? task_rows() * channels_ : count();
    const int64_t grain = std::max<int64_t>(1, kTask / std::max<int64_t>(elements, 1));
    at::parallel_for(0, tasks(), grain, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) body(task);
    });
  }

  // Calls body(run, elements) for each chunk of the task; run(loop) applies a loop to the chunk.
  template <typename Body>
  void walk(int64_t task, const Operands& operands, Span<T> span, Body body) const {
    if (channels_inner_) {
      const int64_t begin = task * task_rows() * channels_;
      const int64_t end = std::min(begin + task_rows() * channels_, count() * channels_);
      for (int64_t offset = begin; offset < end; offset += chunk()) {
        const int64_t n = std::min(chunk(), end - offset);
        visit(operands, span, {offset, n, 0, 1}, body);
      }
      return;
    }
    advance(span, task);
    const int64_t stride = channels_ * inner_;
    if (inner_ >= chunk() || (storage_ != Storage::float16 && inner_ >= kPlaneLanes)) {
      for (int64_t n = 0; n < outer_; ++n) {
        for (int64_t i = 0; i < inner_; i += chunk()) {
          visit(operands, span, {n * stride + task * inner_ + i, std::min(chunk(), inner_ - i), 0, 1}, body);
        }
      }
      return;
    }
    const int64_t planes = chunk() / inner_;
    for (int64_t n = 0; n < outer_; n += planes) {
      visit(operands, span, {n * stride + task * inner_, inner_, stride, std::min(planes, outer_ - n)}, body);
    }
  }

  // Adds the lanes of `acc` to the per-channel totals of this task and clears them.
  void fold(T* acc, double* totals) const {
    if (channels_inner_) {
      for (int64_t i = 0; i < lanes_; i += channels_) {
        for (int64_t c = 0; c < channels_; ++c) totals[c] += acc[i + c];
      }
    } else {
      // pairwise, so that the float sums stay short and the adds independent
      for (int64_t half = lanes_ / 2; half >= 8; half /= 2) {
        for (int64_t i = 0; i < half; ++i) acc[i] += acc[half + i];
      }
      for (int64_t i = 0; i < 8; ++i) totals[0] += acc[i];
    }
    std::fill(acc, acc + lanes_, T(0));
  }

 private:
  // `pieces` runs of `length` elements, `stride` apart.
  struct Place {
    int64_t offset, length, stride, pieces;
  };

  // Memory of this thread for converted chunks; it stays allocated, since fresh pages cost more than the conversion.
  static char* scratch(int64_t bytes) {
    static thread_local std::vector<T> memory;
    const size_t elements = size_t(bytes) / sizeof(T);
    if (memory.size() < elements) memory.resize(elements);
    return reinterpret_cast<char*>(memory.data());
  }

  int64_t task_rows() const {
    const int64_t repeat = lanes_ / channels_;
    return std::max<int64_t>(1, kTask / lanes_) * repeat;
  }

  int64_t chunk() const {
    const int64_t target = storage_ == Storage::float16 ? kConverted : kDirect;
    return std::max<int64_t>(1, target / lanes_) * lanes_;
  }

  static void advance(Span<T>& s, int64_t channel) {
    for (const T** v : {&s.mean, &s.scale, &s.shift, &s.first_g, &s.first_d, &s.first_c, &s.t_v, &s.t_d, &s.t_c,
                        &s.second_v, &s.second_g, &s.second_q, &s.second_d, &s.second_c}) {
      if (*v != nullptr) *v += channel;
    }
  }

  template <typename Body>
  void visit(const Operands& operands, Span<T>& span, Place place, Body& body) const {
    const int64_t n = place.length * place.pieces;
    const bool converts = storage_ == Storage::float16, direct = !converts && place.pieces == 1;
    const int64_t slot_size = chunk() * int64_t(sizeof(T)), unit = converts ? int64_t(sizeof(T)) : item_;
    char* buffer = direct ? nullptr : scratch(5 * slot_size);
    auto in = [&](const char* from, int64_t slot) -> const void* {
      if (from == nullptr || direct) return from == nullptr ? nullptr : from + place.offset * item_;
      for (int64_t p = 0; p < place.pieces; ++p) {
        const char* piece = from + (place.offset + p * place.stride) * item_;
        char* to = buffer + slot * slot_size + p * place.length * unit;
        if (converts) {
          conversions_.from_float16(piece, reinterpret_cast<T*>(to), place.length);
        } else {
          std::memcpy(to, piece, size_t(place.length * unit));
        }
      }
      return buffer + slot * slot_size;
    };
    auto out = [&](char* to, int64_t slot) -> void* {
      if (to == nullptr) return nullptr;
      return direct ? to + place.offset * item_ : buffer + slot * slot_size;
    };
    Span<T> s = span;
    s.x = in(operands.x, 0);
    s.dy = in(operands.dy, 1);
    s.ddx = in(operands.ddx, 2);
    s.out[0] = out(operands.out[0], 3);
    s.out[1] = out(operands.out[1], 4);
    body([&](Loop<T> loop, const T* mean = nullptr) { apply(loop, s, n, unit, mean); }, n);
    for (int64_t k = 0; k < 2; ++k) {
      if (direct || operands.out[k] == nullptr) continue;
      for (int64_t p = 0; p < place.pieces; ++p) {
        char* piece = operands.out[k] + (place.offset + p * place.stride) * item_;
        const char* from = static_cast<const char*>(s.out[k]) + p * place.length * unit;
        if (converts) {
          conversions_.to_float16(reinterpret_cast<const T*>(from), piece, place.length);
        } else {
          std::memcpy(piece, from, size_t(place.length * unit));
        }
      }
    }
  }

  // Full rows of lanes, then what is left as one shorter row.
  void apply(Loop<T> loop, Span<T> s, int64_t n, int64_t unit, const T* mean) const {
    if (mean != nullptr) s.mean = mean;
    s.width = lanes_;
    s.rows = n / lanes_;
    if (s.rows > 0) loop(s);
    const int64_t done = s.rows * lanes_;
    if (done == n) return;
    for (const void** in : {&s.x, &s.dy, &s.ddx}) {
      if (*in != nullptr) *in = static_cast<const char*>(*in) + done * unit;
    }
    for (void*& out : s.out) {
      if (out != nullptr) out = static_cast<char*>(out) + done * unit;
    }
    s.rows = 1;
    s.width = n - done;
    loop(s);
  }

  int64_t item_, channels_, outer_, inner_, lanes_;
  bool channels_inner_;
  Storage storage_;
  Conversions<T> conversions_ = conversions<T>();
};

}  // namespace fastgan
