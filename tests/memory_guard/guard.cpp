// Preloaded, it gives every tensor pages of its own between two that nobody may touch, so that a
// kernel that reads or writes beyond it dies there. torch allocates with posix_memalign and free.
//
// ENTPROP_GUARD=after: a tensor ends where the page after it begins, but for the rest of 64 bytes
// (torch's alignment); before: it begins where the page before it ends.
#include <dlfcn.h>
#include <sys/mman.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace {

constexpr size_t kPage = 4096, kAlignment = 64, kSmallest = 64;
constexpr size_t kSlots = size_t{1} << 20;

struct Slot {
  void* tensor;  // kFreed once it was given back
  void* pages;
  size_t bytes;
};

// Open addressing: this must not allocate.
Slot slots[kSlots];
void* const kFreed = reinterpret_cast<void*>(1);
std::atomic_flag busy = ATOMIC_FLAG_INIT;

struct Locked {
  Locked() {
    while (busy.test_and_set(std::memory_order_acquire)) {
    }
  }
  ~Locked() { busy.clear(std::memory_order_release); }
};

size_t slot_of(const void* tensor) {
  return (reinterpret_cast<uintptr_t>(tensor) / kAlignment * 0x9E3779B97F4A7C15u) >> 44;
}

template <class F>
F next(const char* name) {
  return reinterpret_cast<F>(dlsym(RTLD_NEXT, name));
}

bool at_the_end() {
  const char* side = std::getenv("ENTPROP_GUARD");
  return side == nullptr || std::strcmp(side, "before") != 0;
}

}  // namespace

extern "C" int posix_memalign(void** out, size_t alignment, size_t bytes) {
  static const auto plain = next<int (*)(void**, size_t, size_t)>("posix_memalign");
  static const bool end = at_the_end();
  if (bytes < kSmallest || alignment > kAlignment) return plain(out, alignment, bytes);
  const size_t whole = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  const size_t inner = (whole + kPage - 1) / kPage * kPage, all = inner + 2 * kPage;
  void* pages = mmap(nullptr, all, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pages == MAP_FAILED) return ENOMEM;
  char* begin = static_cast<char*>(pages) + kPage;
  if (mprotect(begin, inner, PROT_READ | PROT_WRITE) != 0) return ENOMEM;
  char* tensor = end ? begin + inner - whole : begin;
  const Locked locked;
  size_t i = slot_of(tensor);
  while (slots[i].tensor != nullptr && slots[i].tensor != kFreed) i = (i + 1) % kSlots;
  slots[i] = {tensor, pages, all};
  *out = tensor;
  return 0;
}

extern "C" void free(void* memory) {
  static const auto plain = next<void (*)(void*)>("free");
  if (memory != nullptr && reinterpret_cast<uintptr_t>(memory) % kAlignment == 0) {
    const Locked locked;
    size_t i = slot_of(memory);
    while (slots[i].tensor != nullptr && slots[i].tensor != memory) i = (i + 1) % kSlots;
    if (slots[i].tensor == memory) {
      munmap(slots[i].pages, slots[i].bytes);
      slots[i].tensor = kFreed;
      return;
    }
  }
  plain(memory);
}
