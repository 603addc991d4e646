// The suite must fail on each mutant, in the test that is there for it, and must not crash.
#include "backends/conformance/mutants.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <vector>

extern char** environ;

namespace reticle::backends::conformance {
namespace {

// Runs the suite on a mutant; returns the exit status of waitpid.
int RunSuite(const std::string& mutant, const std::string& filter) {
  const std::string program =
      std::filesystem::read_symlink("/proc/self/exe").parent_path() / "conformance-mutant";
  std::vector<std::string> arguments = {
      program, "--gtest_filter=" + filter, "--gtest_brief=1", "--driver", mutant, "--patience",
      "1"};
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
  pid_t child = -1;
  EXPECT_EQ(posix_spawn(&child, program.c_str(), &actions, nullptr, argv.data(), environ), 0);
  posix_spawn_file_actions_destroy(&actions);
  int status = -1;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  return status;
}

TEST(MutantsTest, TheWrapperAloneBreaksNothing) {
  const int status = RunSuite("none", "*");
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "wait status " << status;
}

class MutantTest : public ::testing::TestWithParam<Mutant> {};

TEST_P(MutantTest, IsCaught) {
  const int status = RunSuite(GetParam().name, GetParam().caught_by);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 1)
      << GetParam().caught_by << " did not notice; wait status " << status;
}

INSTANTIATE_TEST_SUITE_P(Mutants, MutantTest, ::testing::ValuesIn(Mutants()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace reticle::backends::conformance
