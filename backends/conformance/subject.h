// What the conformance suite tests: one driver and how to open its device. Set once by the program
// before the tests run.
#ifndef RETICLE_BACKENDS_CONFORMANCE_SUBJECT_H_
#define RETICLE_BACKENDS_CONFORMANCE_SUBJECT_H_

#include <cstdint>
#include <optional>
#include <string>

#include "backends/abi/device.h"

namespace reticle::backends::conformance {

struct Subject {
  Driver driver;
  DeviceConfig config;
  // How long nothing may happen while something should, before a test gives up; seconds.
  uint32_t patience_s = 60;
  // Two adapters that fit the model and change what it says, for a driver that offers adapters;
  // empty for one that takes any name and pays no heed to it.
  std::string adapter_paths[2];
};

void SetSubject(Subject subject);
const Subject& TheSubject();

}  // namespace reticle::backends::conformance

#endif  // RETICLE_BACKENDS_CONFORMANCE_SUBJECT_H_
