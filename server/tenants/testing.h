// What the accounts' tests share. For tests only.
#ifndef RETICLE_SERVER_TENANTS_TESTING_H_
#define RETICLE_SERVER_TENANTS_TESTING_H_

#include <signal.h>
#include <stdlib.h>
#include <sys/types.h>

#include <filesystem>
#include <string>
#include <vector>

#include "base/check.h"

namespace reticle::server::tenants {

// Removed with all that is in it.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "reticle-XXXXXX").string();
    RETICLE_CHECK(mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// A program that runs beside the test; killed with it.
class Program {
 public:
  explicit Program(std::vector<std::string> words);
  ~Program();
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;
  void Kill(int signal = SIGKILL);
  // Until it ends by itself.
  void Wait();

 private:
  pid_t pid_ = -1;
};

// A port of 127.0.0.1 that was free a moment ago.
int FreePort();

}  // namespace reticle::server::tenants

#endif  // RETICLE_SERVER_TENANTS_TESTING_H_
