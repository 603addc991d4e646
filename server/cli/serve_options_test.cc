#include "server/cli/serve_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>

namespace reticle::server::cli {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class ServeOptionsTest : public testing::Test {
 protected:
  std::string Config(const std::string& text) {
    const std::string path = testing::TempDir() + "serve_options_test.toml";
    std::ofstream(path) << text;
    return path;
  }
  // The message of a failure; empty when there is none.
  std::string Parse(const std::vector<std::string>& arguments) {
    options_ = {};
    const auto exit = ParseServeArguments(arguments, options_);
    return exit.has_value() ? exit->output : "";
  }
  ServeOptions options_;
};

TEST_F(ServeOptionsTest, DefaultsBindLoopbackOnly) {
  EXPECT_EQ(Parse({}), "");
  EXPECT_EQ(options_.http_options.host, "127.0.0.1");
  EXPECT_EQ(options_.http_options.port, 8080);
  EXPECT_EQ(options_.grpc, "127.0.0.1:50051");
  EXPECT_EQ(Parse({"--http", "0"}), "");
  EXPECT_EQ(options_.http_options.host, "127.0.0.1");
  EXPECT_EQ(options_.http_options.port, 0);
}

TEST_F(ServeOptionsTest, FlagsOverrideTheFile) {
  const std::string path = Config(
      "[model]\nid = \"a\"\naliases = [\"x\", \"y\"]\n[http]\nlisten = \"127.0.0.1:1\"\n"
      "io_threads = 3\n[scheduler]\nprefix_cache = false\n[server]\ndrain_timeout_s = 5\n");
  EXPECT_EQ(Parse({"--config", path, "--model-id", "b"}), "");
  EXPECT_EQ(options_.model_id, "b");
  EXPECT_THAT(options_.aliases, ElementsAre("x", "y"));
  EXPECT_EQ(options_.http_options.port, 1);
  EXPECT_EQ(options_.http_options.io_threads, 3u);
  EXPECT_FALSE(options_.prefix_cache);
  EXPECT_EQ(options_.drain_timeout_s, 5);
  const std::string flags =
      Config("model-id = \"c\"\nhttp = \"127.0.0.1:2\"\nthreads = 3\nprefix-cache = false\n");
  EXPECT_EQ(Parse({"--config", flags, "--threads", "4"}), "");
  EXPECT_EQ(options_.model_id, "c");
  EXPECT_EQ(options_.http_options.port, 2);
  EXPECT_EQ(options_.threads, 4u);
  EXPECT_FALSE(options_.prefix_cache);
}

TEST_F(ServeOptionsTest, FlagsSwitchBothWays) {
  const std::string path = Config("[scheduler]\nprefix_cache = false\n");
  EXPECT_EQ(Parse({"--config", path, "--prefix-cache"}), "");
  EXPECT_TRUE(options_.prefix_cache);
  EXPECT_EQ(Parse({"--no-prefix-cache"}), "");
  EXPECT_FALSE(options_.prefix_cache);
}

TEST_F(ServeOptionsTest, MistakesInTheFileAreNamed) {
  EXPECT_THAT(Parse({"--config", Config("[http]\nlisten = 5\n")}), HasSubstr("http.listen"));
  EXPECT_THAT(Parse({"--config", Config("[http]\nlissen = \"x\"\n")}), HasSubstr("http.lissen"));
  EXPECT_THAT(Parse({"--config", Config("[http]\nio_threads = -1\n")}),
              HasSubstr("http.io_threads"));
  EXPECT_THAT(Parse({"--config", Config("[http\n")}), HasSubstr("line 1"));
  EXPECT_THAT(Parse({"--config", "/no/such/file"}), HasSubstr("/no/such/file"));
}

TEST_F(ServeOptionsTest, MistakesOnTheCommandLineAreNamed) {
  EXPECT_THAT(Parse({"--http", "1:2:3"}), HasSubstr("--http"));
  EXPECT_THAT(Parse({"--http", "none", "--grpc", "none"}), HasSubstr("both none"));
  EXPECT_THAT(Parse({"--http", "127.0.0.1:99999"}), HasSubstr("65535"));
  EXPECT_THAT(Parse({"--kv-size", "3TB"}), HasSubstr("3TB"));
  EXPECT_THAT(Parse({"--device-option", "x"}), HasSubstr("name=value"));
  EXPECT_THAT(Parse({"--log-level", "loud"}), HasSubstr("--log-level"));
  EXPECT_THAT(Parse({"--tls-cert", "c"}), HasSubstr("TLS"));
  EXPECT_THAT(Parse({"--max-body-bytes", "1"}), HasSubstr("max_body_bytes"));
}

TEST_F(ServeOptionsTest, DevicesAndAdaptersRepeat) {
  EXPECT_EQ(Parse({}), "");
  EXPECT_THAT(options_.devices, ElementsAre());
  EXPECT_EQ(Parse({"--device", "taalas-hc1", "--device", "nvidia-h100", "--cards", "4", "--adapter",
                   "a=/x/y.gguf:0.5", "--adapter", "b=c:/d.gguf"}),
            "");
  EXPECT_THAT(options_.devices, ElementsAre("taalas-hc1", "nvidia-h100"));
  EXPECT_EQ(options_.cards, 4u);
  ASSERT_EQ(options_.parsed_adapters.size(), 2u);
  EXPECT_EQ(options_.parsed_adapters[0].name, "a");
  EXPECT_EQ(options_.parsed_adapters[0].path, "/x/y.gguf");
  EXPECT_EQ(options_.parsed_adapters[0].scale, 0.5f);
  EXPECT_EQ(options_.parsed_adapters[1].path, "c:/d.gguf");
  EXPECT_EQ(options_.parsed_adapters[1].scale, 1.0f);
  EXPECT_EQ(Parse({"--config", Config("[device]\ndriver = \"fake\"\ncards = 2\n")}), "");
  EXPECT_THAT(options_.devices, ElementsAre("fake"));
  EXPECT_EQ(Parse({"--config", Config("[device]\ndriver = [\"fake\", \"cpu\"]\n")}), "");
  EXPECT_THAT(options_.devices, ElementsAre("fake", "cpu"));
  EXPECT_THAT(Parse({"--adapter", "x"}), HasSubstr("NAME=FILE"));
  EXPECT_THAT(Parse({"--adapter", "x=f:99999"}), HasSubstr("scale"));
  EXPECT_THAT(Parse({"--content", "x"}), HasSubstr("functional or replay"));
  EXPECT_THAT(Parse({"--clock", "x"}), HasSubstr("wall or virtual"));
  EXPECT_THAT(Parse({"--watchdog-ms", "-2"}), HasSubstr("--watchdog-ms"));
  EXPECT_THAT(Parse({"--admin", "1:2:3"}), HasSubstr("--admin"));
  EXPECT_THAT(Parse({"--admin-token", "a", "--admin-token-file", "b"}), HasSubstr("both"));
}

TEST_F(ServeOptionsTest, HelpExplainsEveryOptionWithItsDefault) {
  const auto exit = ParseServeArguments({"--help"}, options_);
  ASSERT_TRUE(exit.has_value());
  EXPECT_EQ(exit->status, 0);
  EXPECT_THAT(exit->output, HasSubstr("--drain-timeout"));
  EXPECT_THAT(exit->output, HasSubstr("127.0.0.1:8080"));
}

TEST_F(ServeOptionsTest, HostPorts) {
  EXPECT_EQ(ParseHostPort("[::1]:80")->host, "::1");
  EXPECT_EQ(ParseHostPort("0.0.0.0:80")->host, "0.0.0.0");
  EXPECT_EQ(ParseHostPort(":80")->host, "127.0.0.1");
  EXPECT_FALSE(ParseHostPort("::1:80").ok());
  EXPECT_FALSE(ParseHostPort("host:").ok());
  EXPECT_EQ(*ParseByteSize("2GiB"), uint64_t{2} << 30);
  EXPECT_FALSE(ParseByteSize("99999999999GiB").ok());
}

TEST_F(ServeOptionsTest, WhatIsReloadableIsFoundAndTakenOver) {
  ServeOptions before, after;
  ASSERT_FALSE(ParseServeArguments({}, before).has_value());
  const std::vector<std::string> flags = {
      "--log-level",  "--no-log-requests", "--log-prompts",    "--trace-ratio",
      "--tier-limit", "--drain-timeout",   "--drain-delay-ms", "--max-connections"};
  ASSERT_FALSE(
      ParseServeArguments(
          {"--log-level", "debug", "--no-log-requests", "--log-prompts", "--trace-ratio", "0.5",
           "--tier-limit", "free.requests_per_minute=7", "--drain-timeout", "7", "--drain-delay-ms",
           "7", "--max-connections", "7", "--http", "1", "--cards", "3"},
          after)
          .has_value());
  std::vector<std::string> reloadable, kept;
  for (const OptionChange& change : Differences(before, after)) {
    (change.reloadable ? reloadable : kept).push_back(change.flag);
  }
  EXPECT_EQ(reloadable.size(), flags.size());
  EXPECT_EQ(kept.size(), 2u);
  EXPECT_TRUE(Differences(before, before).empty());
  TakeReloadable(after, before);
  for (const OptionChange& change : Differences(before, after)) {
    EXPECT_FALSE(change.reloadable) << change.flag;
  }
}

TEST_F(ServeOptionsTest, LogsAndTracesAreChecked) {
  for (const std::vector<std::string>& wrong :
       std::vector<std::vector<std::string>>{{"--log-level", "loud"},
                                             {"--log-format", "xml"},
                                             {"--trace-ratio", "1.5"},
                                             {"--otlp-endpoint", "collector:4318"},
                                             {"--drain-delay-ms", "-1"}}) {
    ServeOptions options;
    const auto exit = ParseServeArguments(wrong, options);
    ASSERT_TRUE(exit.has_value()) << wrong[0];
    EXPECT_NE(exit->output.find(wrong[0]), std::string::npos) << exit->output;
  }
}

}  // namespace
}  // namespace reticle::server::cli
