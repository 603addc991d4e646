// The drivers that a program of the suite was built with, by name.
#ifndef RETICLE_BACKENDS_CONFORMANCE_BUILTIN_DRIVERS_H_
#define RETICLE_BACKENDS_CONFORMANCE_BUILTIN_DRIVERS_H_

#include <string>

#include "backends/abi/reticle_device.h"

namespace reticle::backends::conformance {

// Null when there is none of that name. Each program that links the suite defines it.
const reticle_device_api* FindBuiltinDriver(const std::string& name);

}  // namespace reticle::backends::conformance

#endif  // RETICLE_BACKENDS_CONFORMANCE_BUILTIN_DRIVERS_H_
