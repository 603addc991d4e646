// Drivers that are broken on purpose: the fake device with one rule of the ABI broken, to prove
// that the suite notices.
#ifndef RETICLE_BACKENDS_CONFORMANCE_MUTANTS_H_
#define RETICLE_BACKENDS_CONFORMANCE_MUTANTS_H_

#include <functional>
#include <ostream>
#include <string>
#include <vector>

#include "backends/abi/reticle_device.h"

namespace reticle::backends::conformance {

// Which rule is broken, and how. Each hook may be empty. They act on whole structs of this version.
struct Mutant {
  std::string name;
  // A test that must fail (a --gtest_filter).
  std::string caught_by;
  std::function<void(reticle_capabilities&)> on_describe;
  // Changes an item on its way to the device.
  std::function<void(reticle_device*, reticle_work&, reticle_sampling&)> on_work;
  // Changes the completions that a poll brings; may drop or add some.
  std::function<void(std::vector<reticle_completion>&)> on_completions;
  // Changes what submit returns; may act on the device.
  std::function<void(reticle_device*, const reticle_work&, size_t count, size_t& accepted,
                     int32_t& code)>
      on_submitted;
  std::function<int32_t(reticle_device*, uint64_t sequence, reticle_error*)> cancel;
  std::function<int32_t(reticle_device*)> arm;
  std::function<void(reticle_stats&)> on_stats;
  std::function<int32_t(reticle_device*)> reset;
  bool overruns_outputs = false;  // writes whole structs whatever struct_size says
  bool ignores_stride = false;    // writes completions at its own sizeof
  bool reads_beyond = false;      // reads whole structs whatever struct_size says
  bool silent = false;            // refusals carry no message
};

// For messages of GoogleTest.
inline void PrintTo(const Mutant& mutant, std::ostream* out) { *out << mutant.name; }

const std::vector<Mutant>& Mutants();

// The table of a mutant. One mutant a process: it is chosen by the first call.
const reticle_device_api* MutantApi(const Mutant& mutant);

}  // namespace reticle::backends::conformance

#endif  // RETICLE_BACKENDS_CONFORMANCE_MUTANTS_H_
