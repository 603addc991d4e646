// The text of the built-in profiles; generated at build time from the TOML files of this folder.
#ifndef RETICLE_BACKENDS_HARDWIRED_PROFILES_BUILT_IN_PROFILES_H_
#define RETICLE_BACKENDS_HARDWIRED_PROFILES_BUILT_IN_PROFILES_H_

#include <span>

namespace reticle::backends::hardwired {

struct BuiltInProfile {
  const char* name;  // the file's `name`
  const char* toml;
};
std::span<const BuiltInProfile> BuiltInProfiles();

}  // namespace reticle::backends::hardwired

#endif  // RETICLE_BACKENDS_HARDWIRED_PROFILES_BUILT_IN_PROFILES_H_
