// Memory of a thread that stays from call to call, and results in large pages.
#pragma once
#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <cstdint>
#include <cstdlib>
#ifdef __linux__
#include <sys/mman.h>
#endif

namespace fastgan {

constexpr size_t kPage = size_t(1) << 21;

// Asks for large pages where the memory covers some. Torch's memory of 32 MiB and more goes back to the system when it
// is freed, and a fault for each small page would cost as much as what is computed.
inline void in_large_pages([[maybe_unused]] void* data, [[maybe_unused]] size_t bytes) {
#ifdef __linux__
  const size_t before = (kPage - reinterpret_cast<uintptr_t>(data) % kPage) % kPage;
  if (bytes < before + kPage) return;
  madvise(static_cast<char*>(data) + before, (bytes - before) / kPage * kPage, MADV_HUGEPAGE);
#endif
}

// Where a kernel writes a result.
inline char* mutable_data(const at::Tensor& t) {
  char* data = static_cast<char*>(t.mutable_data_ptr());
  in_large_pages(data, t.nbytes());
  return data;
}

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
    in_large_pages(data, size);
    data_ = data;
    size_ = size;
    return data_;
  }

 private:
  static constexpr size_t kLine = 64, kLarge = kPage / 2;
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
