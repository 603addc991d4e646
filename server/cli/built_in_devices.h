// The devices that are linked into the program: with main.cc the only place that knows them.
#ifndef RETICLE_SERVER_CLI_BUILT_IN_DEVICES_H_
#define RETICLE_SERVER_CLI_BUILT_IN_DEVICES_H_

#include <vector>

#include "server/cli/device_choice.h"

namespace reticle::server::cli {

// In the order in which they are listed.
std::vector<DeviceChoice> BuiltInDevices();

}  // namespace reticle::server::cli

#endif  // RETICLE_SERVER_CLI_BUILT_IN_DEVICES_H_
