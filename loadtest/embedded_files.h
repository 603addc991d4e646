// Files of this folder that are linked into the binary: the scenarios and the report's page.
#ifndef RETICLE_LOADTEST_EMBEDDED_FILES_H_
#define RETICLE_LOADTEST_EMBEDDED_FILES_H_

#include <string_view>
#include <vector>

namespace reticle::loadtest {

struct EmbeddedFile {
  std::string_view name;  // without folder: "chat.toml"
  std::string_view text;
};

// By name. The source is generated at build time.
const std::vector<EmbeddedFile>& EmbeddedFiles();

}  // namespace reticle::loadtest

#endif  // RETICLE_LOADTEST_EMBEDDED_FILES_H_
