#include "server/cli/service_manager.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

namespace reticle::server::cli {
namespace {

void Set(const char* pid, const char* count, const char* names) {
  const struct {
    const char* name;
    const char* value;
  } variables[] = {{"LISTEN_PID", pid}, {"LISTEN_FDS", count}, {"LISTEN_FDNAMES", names}};
  for (const auto& variable : variables) {
    if (variable.value == nullptr) {
      unsetenv(variable.name);
    } else {
      setenv(variable.name, variable.value, 1);
    }
  }
}

using Sockets = std::map<std::string, int>;

TEST(ServiceManagerTest, SocketsGoByTheirNamesOrTheirOrder) {
  const std::string own = std::to_string(getpid());
  Set(own.c_str(), "3", "grpc:admin:http");
  EXPECT_EQ(*TakeInheritedSockets(), (Sockets{{"grpc", 3}, {"admin", 4}, {"http", 5}}));
  EXPECT_EQ(std::getenv("LISTEN_FDS"), nullptr) << "children must not take them for theirs";
  Set(own.c_str(), "2", nullptr);
  EXPECT_EQ(*TakeInheritedSockets(), (Sockets{{"http", 3}, {"grpc", 4}}));
  Set(own.c_str(), "1", "reticle.socket");
  EXPECT_EQ(*TakeInheritedSockets(), (Sockets{{"http", 3}}));
  Set(own.c_str(), "2", "http:unknown");
  EXPECT_FALSE(TakeInheritedSockets().ok()) << "two that are http";
  Set(own.c_str(), "3", "a:b:c");
  EXPECT_FALSE(TakeInheritedSockets().ok());
}

TEST(ServiceManagerTest, ThoseOfAnotherProcessAndNonsenseAreNone) {
  const std::string own = std::to_string(getpid());
  const std::string other = std::to_string(getpid() + 1);
  const struct {
    const char* pid;
    const char* count;
  } cases[] = {{nullptr, nullptr},          {own.c_str(), nullptr}, {nullptr, "1"},
               {other.c_str(), "1"},        {own.c_str(), "0"},     {own.c_str(), "-1"},
               {own.c_str(), "x"},          {own.c_str(), ""},      {"", "1"},
               {own.c_str(), "99999999999"}};
  for (const auto& item : cases) {
    Set(item.pid, item.count, "http");
    const auto sockets = TakeInheritedSockets();
    ASSERT_TRUE(sockets.ok());
    EXPECT_TRUE(sockets->empty());
  }
}

TEST(ServiceManagerTest, WithoutOneNothingHappens) {
  unsetenv("NOTIFY_SOCKET");
  NotifyServiceManager("READY=1");
  setenv("NOTIFY_SOCKET", "/nowhere/at/all", 1);
  NotifyServiceManager("READY=1");
  setenv("NOTIFY_SOCKET", std::string(300, '/').c_str(), 1);
  NotifyServiceManager("READY=1");
  unsetenv("NOTIFY_SOCKET");
}

}  // namespace
}  // namespace reticle::server::cli
