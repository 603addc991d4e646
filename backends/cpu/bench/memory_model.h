// A synthetic model in a file that lies in memory and has no name: a driver can open it, another
// program too while this process lives, and nothing is left behind.
#ifndef RETICLE_BACKENDS_CPU_BENCH_MEMORY_MODEL_H_
#define RETICLE_BACKENDS_CPU_BENCH_MEMORY_MODEL_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "models/gguf_writer.h"

namespace reticle::backends::cpu::bench {

// Owns the memory; movable.
class MemoryModel {
 public:
  // RESOURCE_EXHAUSTED when the system refuses.
  static absl::StatusOr<MemoryModel> Create(const models::GgufWriter& writer);
  MemoryModel() = default;
  ~MemoryModel();
  MemoryModel(MemoryModel&& other) noexcept;
  MemoryModel& operator=(MemoryModel&& other) noexcept;

  // Valid for every process of this user.
  std::string path() const;
  uint64_t bytes() const { return bytes_; }

 private:
  int fd_ = -1;
  uint64_t bytes_ = 0;
};

}  // namespace reticle::backends::cpu::bench

#endif  // RETICLE_BACKENDS_CPU_BENCH_MEMORY_MODEL_H_
