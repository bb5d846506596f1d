// Cuts a tensor (N, C, S) into tasks for the thread pool and into chunks that fit the cache, and runs loops over them.
// Tasks depend on the shape alone, never on the number of threads, so sums are the same for any number of threads.
#pragma once
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "cpu/memory.h"
#include "cpu/span.h"
#include "cpu/tasks.h"
#include "cpu/vectors.h"

namespace fastgan {

// Elements of a chunk that is read in place, of one that is converted first, and of a task.
constexpr int64_t kDirect = 16384, kConverted = 8192, kTask = 32768;
// Lanes that a loop should have at least, and the largest plane whose elements are the lanes of a loop over samples.
constexpr int64_t kLanes = 256, kPlane = 4096;

struct Operands {
  const char *x = nullptr, *dy = nullptr, *ddx = nullptr;
  char* out[2] = {nullptr, nullptr};
};

inline const char* data(const at::Tensor& t) { return static_cast<const char*>(t.const_data_ptr()); }

// How the channels lie, what a task is, and to which channel a lane of it belongs.
enum class Order {
  rows,    // channels innermost; a task is a block of rows of all channels; lane i: channel i % C
  groups,  // channels outermost, small planes; a task is a group of neighbouring channels; lane i: channel i / S
  planes,  // channels outermost, large planes; a task is one channel
};

template <typename T>
class Chunks {
 public:
  explicit Chunks(const at::Tensor& x) : item_(x.element_size()), outer_(x.size(0)), channels_(x.size(1)) {
    plane_ = x.numel() == 0 ? 0 : x.numel() / (outer_ * channels_);
    storage_ = storage_of(x);
    if (plane_ <= 1 || channels_ == 1 || !x.is_contiguous()) {
      order_ = Order::rows;
      lanes_ = std::max<int64_t>(1, 2 * kLanes / std::max<int64_t>(channels_, 1)) * channels_;
    } else if (plane_ < kLanes) {
      order_ = Order::groups;
      group_ = std::min(channels_, kLanes / plane_);
      lanes_ = group_ * plane_;
    } else {
      order_ = Order::planes;
      lanes_ = plane_ <= kPlane ? plane_ : kLanes;
    }
  }

  Storage storage() const { return storage_; }
  Order order() const { return order_; }
  int64_t channels() const { return channels_; }
  int64_t lanes() const { return lanes_; }
  int64_t count() const { return outer_ * plane_; }

  int64_t tasks() const {
    if (count() == 0) return 0;
    if (order_ == Order::rows) return (count() + task_rows() - 1) / task_rows();
    return (channels_ + group_ - 1) / group_;
  }
  // The channels of a task; tasks have their channels to themselves unless the order is rows.
  int64_t first_channel(int64_t task) const { return order_ == Order::rows ? 0 : task * group_; }
  int64_t task_channels(int64_t task) const {
    return order_ == Order::rows ? channels_ : std::min(group_, channels_ - task * group_);
  }
  int64_t most_channels() const { return order_ == Order::rows ? channels_ : group_; }

  // Writes the entries of the task's channels where its lanes read them.
  void spread(int64_t task, const T* v, T* lanes) const {
    if (order_ == Order::rows) {
      for (int64_t i = 0; i < lanes_; i += channels_) std::copy(v, v + channels_, lanes + i);
    } else if (order_ == Order::groups) {
      for (int64_t c = 0; c < task_channels(task); ++c) std::fill_n(lanes + c * plane_, plane_, v[c]);
    } else {
      lanes[0] = v[0];
    }
  }

  // A per-channel vector as the lanes of all tasks read it, and where those of one task begin in it.
  std::vector<T> spread(const std::vector<T>& v) const {
    const int64_t size = order_ == Order::rows ? lanes_ : order_ == Order::groups ? channels_ * plane_ : channels_;
    std::vector<T> wide(size);
    const int64_t parts = order_ == Order::rows ? 1 : (channels_ + group_ - 1) / group_;
    for (int64_t task = 0; task < parts; ++task) {
      spread(task, v.data() + first_channel(task), wide.data() + lane_offset(task));
    }
    return wide;
  }
  int64_t lane_offset(int64_t task) const {
    return order_ == Order::rows ? 0 : order_ == Order::groups ? task * lanes_ : task;
  }

  template <typename Body>
  void parallel(Body body) const {
    const int64_t elements = order_ == Order::rows ? task_rows() * channels_ : count() * group_;
    share_tasks(tasks(), elements, body, kTask);
  }

  // Calls body(run, count) for each chunk of the task, of `count` values a channel; run(loop) applies a loop to it.
  template <typename Body>
  void walk(int64_t task, const Operands& operands, Span<T> span, Body body) const {
    advance(span, lane_offset(task));
    const int64_t target = storage_ == Storage::float16 ? kConverted : kDirect, sample = channels_ * plane_;
    if (order_ == Order::rows) {
      const int64_t most = std::max<int64_t>(1, target / lanes_) * lanes_;
      const int64_t begin = task * task_rows() * channels_,
                    end = std::min(begin + task_rows() * channels_, count() * channels_);
      for (int64_t offset = begin; offset < end; offset += most) {
        const int64_t n = std::min(most, end - offset);
        visit(operands, span, {offset, n / lanes_, lanes_, lanes_, n % lanes_}, n / channels_, body);
      }
    } else if (plane_ <= kPlane) {
      const int64_t width = task_channels(task) * plane_, most = std::max<int64_t>(1, target / lanes_);
      for (int64_t n = 0; n < outer_; n += most) {
        const int64_t rows = std::min(most, outer_ - n);
        visit(operands, span, {n * sample + task * group_ * plane_, rows, width, sample, 0}, rows * plane_, body);
      }
    } else {
      const int64_t most = target / lanes_ * lanes_;
      for (int64_t n = 0; n < outer_; ++n) {
        for (int64_t i = 0; i < plane_; i += most) {
          const int64_t size = std::min(most, plane_ - i), offset = n * sample + task * plane_ + i;
          visit(operands, span, {offset, size / lanes_, lanes_, lanes_, size % lanes_}, size, body);
        }
      }
    }
  }

  // Adds the lanes of `acc` to the totals of the task's channels and clears them.
  void fold(int64_t task, T* acc, double* totals) const {
    if (order_ == Order::rows) {
      for (int64_t i = 0; i < lanes_; i += channels_) {
        for (int64_t c = 0; c < channels_; ++c) totals[c] += acc[i + c];
      }
    } else if (order_ == Order::groups) {
      for (int64_t c = 0; c < task_channels(task); ++c) totals[c] += sum(acc + c * plane_, plane_);
    } else {
      totals[0] += sum(acc, lanes_);
    }
    std::fill(acc, acc + lanes_, T(0));
  }

 private:
  // `rows` rows of `width` elements, `stride` apart, and `tail` more behind them.
  struct Place {
    int64_t offset, rows, width, stride, tail;
    bool dense() const { return stride == width; }
  };

  // Short sums in T, side by side, then in double.
  static double sum(const T* v, int64_t n) {
    T partial[16] = {};
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
      for (int64_t k = 0; k < 16; ++k) partial[k] += v[i + k];
    }
    double total = 0;
    for (; i < n; ++i) total += v[i];
    for (const T p : partial) total += p;
    return total;
  }

  int64_t task_rows() const { return std::max<int64_t>(1, kTask / lanes_) * (lanes_ / channels_); }

  static void advance(Span<T>& s, int64_t lanes) {
    for (const T** v : {&s.mean, &s.scale, &s.shift, &s.first_g, &s.first_d, &s.first_c, &s.t_v, &s.t_d, &s.t_c,
                        &s.second_v, &s.second_g, &s.second_q, &s.second_d, &s.second_c}) {
      if (*v != nullptr) *v += lanes;
    }
  }

  template <typename Body>
  void visit(const Operands& operands, Span<T>& span, Place place, int64_t count, Body& body) const {
    const bool converts = storage_ == Storage::float16;
    const int64_t size = place.rows * place.width + place.tail, unit = converts ? int64_t(sizeof(T)) : item_;
    T* buffer = converts ? scratch<T, 12>(5 * size) : nullptr;
    auto in = [&](const char* from, int64_t slot) -> const void* {
      if (from == nullptr || !converts) return from == nullptr ? nullptr : from + place.offset * item_;
      each_run(place, [&](int64_t at, int64_t to, int64_t n) {
        conversions_.from_float16(from + at * item_, buffer + slot * size + to, n);
      });
      return buffer + slot * size;
    };
    auto out = [&](char* to, int64_t slot) -> void* {
      if (to == nullptr || !converts) return to == nullptr ? nullptr : to + place.offset * item_;
      return buffer + slot * size;
    };
    Span<T> s = span;
    s.x = in(operands.x, 0);
    s.dy = in(operands.dy, 1);
    s.ddx = in(operands.ddx, 2);
    s.out[0] = out(operands.out[0], 3);
    s.out[1] = out(operands.out[1], 4);
    s.stride = converts ? place.width : place.stride;
    body([&](Loop<T> loop, const T* mean = nullptr) { apply(loop, s, place, unit, mean); }, count);
    for (int64_t k = 0; converts && k < 2; ++k) {
      if (operands.out[k] == nullptr) continue;
      const T* from = static_cast<const T*>(s.out[k]);
      each_run(place, [&](int64_t at, int64_t to, int64_t n) {
        conversions_.to_float16(from + to, operands.out[k] + at * item_, n);
      });
    }
  }

  // Calls f(offset in the tensor, offset in the buffer, elements) for each contiguous run of the place.
  template <typename F>
  static void each_run(const Place& place, F f) {
    if (place.dense()) return f(place.offset, 0, place.rows * place.width + place.tail);
    for (int64_t row = 0; row < place.rows; ++row) {
      f(place.offset + row * place.stride, row * place.width, place.width);
    }
  }

  // Full rows of lanes, then what is left as one shorter row.
  void apply(Loop<T> loop, Span<T> s, const Place& place, int64_t unit, const T* mean) const {
    if (mean != nullptr) s.mean = mean;
    s.width = place.width;
    s.rows = place.rows;
    if (s.rows > 0) loop(s);
    if (place.tail == 0) return;
    const int64_t done = place.rows * place.width * unit;
    for (const void** in : {&s.x, &s.dy, &s.ddx}) {
      if (*in != nullptr) *in = static_cast<const char*>(*in) + done;
    }
    for (void*& out : s.out) {
      if (out != nullptr) out = static_cast<char*>(out) + done;
    }
    s.rows = 1;
    s.width = place.tail;
    loop(s);
  }

  int64_t item_, outer_, channels_, plane_ = 0, lanes_ = 0, group_ = 1;
  Order order_;
  Storage storage_;
  Conversions<T> conversions_ = conversions<T>();
};

}  // namespace fastgan
