// Independent tasks on all threads.
#pragma once
#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>

namespace fastgan {

// Values that are worth a thread.
constexpr int64_t kThread = 65536;

// How many tasks of so many values are worth a thread.
inline int64_t grain(int64_t values, int64_t enough = kThread) {
  return std::max<int64_t>(1, enough / std::max<int64_t>(1, values));
}

// Calls body(task) for each of `count` tasks of so many values; a thread gets neighbouring ones, of `enough` values.
template <typename Body>
void share_tasks(int64_t count, int64_t values, Body body, int64_t enough = kThread) {
  at::parallel_for(0, count, grain(values, enough), [&](int64_t first, int64_t last) {
    for (int64_t task = first; task < last; ++task) body(task);
  });
}

// Calls body(task) for each of `count` tasks of unequal length, or on cores of unequal speed: a thread that is done
// takes the next one.
template <typename Body>
void each_task(int64_t count, Body body) {
  std::atomic<int64_t> next{0};
  const int64_t threads = std::min<int64_t>(count, at::get_num_threads());
  at::parallel_for(0, threads, 1, [&](int64_t, int64_t) {
    for (int64_t task = next++; task < count; task = next++) body(task);
  });
}

}  // namespace fastgan
