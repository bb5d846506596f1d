// Memory of a thread that stays from call to call.
#pragma once
#include <c10/util/Exception.h>

#include <cstdint>
#include <cstdlib>
#ifdef __linux__
#include <sys/mman.h>
#endif

namespace fastgan {

// Memory that grows; what is large in large pages, where the system has them: products walk through it in long strides.
class Memory {
 public:
  Memory() = default;
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory() { std::free(data_); }

  void* at_least(size_t bytes) {
    if (bytes <= size_) return data_;
    std::free(data_);
    data_ = nullptr;
    size_ = 0;
    const size_t unit = bytes < kLarge ? kLine : kPage, size = (bytes + unit - 1) / unit * unit;
    void* data = std::aligned_alloc(unit, size);
    TORCH_CHECK(data != nullptr, "fastgan: out of memory, ", size, " bytes were asked for");
#ifdef __linux__
    if (unit == kPage) madvise(data, size, MADV_HUGEPAGE);
#endif
    data_ = data;
    size_ = size;
    return data_;
  }

 private:
  static constexpr size_t kLine = 64, kPage = size_t(1) << 21, kLarge = kPage / 2;
  void* data_ = nullptr;
  size_t size_ = 0;
};

// Memory of this thread for one purpose, not initialised; it stays allocated, since fresh pages cost more than the
// arithmetic.
template <typename T, int Purpose>
T* scratch(int64_t elements) {
  static thread_local Memory memory;
  return static_cast<T*>(memory.at_least(size_t(elements) * sizeof(T)));
}

}  // namespace fastgan
