// The CPU device through its ABI: the same request gives the same tokens whatever runs beside it,
// however its prompt is cut, with any number of threads and on shared prefix blocks.
#include "backends/cpu/cpu_device.h"

#include <poll.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "backends/abi/device.h"
#include "backends/cpu/packed_file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/synthetic.h"

namespace reticle::backends::cpu {
namespace {

using models::TensorType;

std::string TempModel(TensorType type) {
  models::SyntheticLlamaOptions options;
  options.config = models::SmallWideLlamaConfig();
  options.matrix_type = type;
  const std::string path =
      testing::TempDir() + "cpu_device_test_" + std::to_string(static_cast<int>(type)) + ".gguf";
  EXPECT_TRUE(models::WriteSyntheticLlama(options, path).ok());
  return path;
}

struct Request {
  std::vector<uint32_t> prompt;
  uint32_t output_tokens = 24;
  float temperature = 0.0f;
  uint64_t seed = 7;
  uint32_t chunk = 512;
  uint32_t credits = 1;
  // When not empty, these blocks hold the first positions already.
  std::vector<uint32_t> prefix_blocks;
  uint32_t prefix_tokens = 0;
};

std::vector<uint32_t> Prompt(uint32_t seed, uint32_t length, uint32_t vocab) {
  std::vector<uint32_t> tokens(length);
  uint64_t state = seed * 2654435761u + 1;
  for (uint32_t& token : tokens) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    token = static_cast<uint32_t>((state >> 33) % vocab);
  }
  return tokens;
}

// A host that runs requests together and collects their tokens.
class Host {
 public:
  Host(const std::string& path, uint32_t threads, const std::string& step_tokens = "512",
       const std::string& packed_folder = "") {
    DeviceConfig config;
    config.model_path = path;
    config.threads = threads;
    config.max_sequences = 80;
    config.kv_bytes = uint64_t{256} << 20;
    config.options = {{"step_tokens", step_tokens}};
    if (!packed_folder.empty()) config.options.push_back({"packed", packed_folder});
    auto device = Device::Open(*Driver::FromApi(CpuDeviceApi()), config);
    EXPECT_TRUE(device.ok()) << device.status();
    device_ = *std::move(device);
  }

  Device& device() { return *device_; }
  const reticle_capabilities& caps() const { return device_->capabilities(); }

  struct Run {
    Request request;
    uint64_t id = 0;
    std::vector<uint32_t> blocks;
    uint32_t fed = 0;
    uint32_t granted = 0;
    std::vector<uint32_t> output;
    std::string finish;
  };

  std::vector<uint32_t> Blocks(uint32_t tokens) {
    std::vector<uint32_t> blocks((tokens + caps().kv_block_tokens - 1) / caps().kv_block_tokens);
    std::iota(blocks.begin(), blocks.end(), next_block_);
    next_block_ += static_cast<uint32_t>(blocks.size());
    EXPECT_LE(next_block_, caps().kv_block_count);
    return blocks;
  }

  // Runs all requests at once; returns their outputs in order.
  std::vector<std::vector<uint32_t>> RunAll(const std::vector<Request>& requests) {
    std::map<uint64_t, Run> runs;
    std::vector<uint64_t> ids;
    for (const Request& request : requests) {
      Run run;
      run.request = request;
      run.id = next_id_++;
      run.blocks = request.prefix_blocks;
      const uint32_t total = static_cast<uint32_t>(request.prompt.size()) + request.output_tokens;
      const std::vector<uint32_t> own = Blocks(total - request.prefix_tokens);
      run.blocks.insert(run.blocks.end(), own.begin(), own.end());
      run.fed = request.prefix_tokens;
      ids.push_back(run.id);
      runs.emplace(run.id, run);
    }
    last_blocks_ = runs.at(ids.back()).blocks;
    for (const uint64_t id : ids) SubmitPrompt(runs.at(id));
    size_t live = runs.size();
    while (live > 0) {
      std::vector<reticle_completion> completions(64);
      auto count = device_->Poll(completions);
      EXPECT_TRUE(count.ok());
      for (size_t i = 0; i < *count; ++i) live -= Handle(runs, completions[i]) ? 1 : 0;
      if (*count == 0 && !device_->Arm()) {
        pollfd event{caps().event_fd, POLLIN, 0};
        EXPECT_EQ(poll(&event, 1, 60000), 1) << "the device stopped";
        uint64_t value;
        EXPECT_EQ(read(caps().event_fd, &value, sizeof(value)), 8);
      }
    }
    std::vector<std::vector<uint32_t>> outputs;
    for (const uint64_t id : ids) outputs.push_back(runs.at(id).output);
    return outputs;
  }

  const std::vector<uint32_t>& last_blocks() const { return last_blocks_; }

 private:
  void SubmitPrompt(Run& run) {
    const Request& request = run.request;
    while (run.fed < request.prompt.size()) {
      const uint32_t left = static_cast<uint32_t>(request.prompt.size()) - run.fed;
      const uint32_t count = std::min(left, std::min(request.chunk, caps().max_prefill_chunk));
      reticle_sampling sampling{};
      sampling.struct_size = sizeof(sampling);
      sampling.temperature = request.temperature;
      sampling.top_p = request.temperature > 0 ? 0.95f : 1.0f;
      sampling.repetition_penalty = 1.0f;
      sampling.seed = request.seed;
      sampling.prompt_tokens = static_cast<uint32_t>(request.prompt.size());
      reticle_work work{};
      work.struct_size = sizeof(work);
      work.sequence = run.id;
      work.tag = run.id + 1000;
      work.position = run.fed;
      work.tokens = request.prompt.data() + run.fed;
      work.token_count = count;
      work.kv_blocks = run.blocks.data();
      work.kv_block_count = static_cast<uint32_t>(run.blocks.size());
      if (count == left) {
        work.sampling = &sampling;
        work.decode_credits = std::min(request.credits, request.output_tokens);
        run.granted = work.decode_credits;
      }
      absl::Status refusal;
      ASSERT_EQ(device_->Submit({&work, 1}, &refusal), 1u) << refusal;
      run.fed += count;
    }
  }

  // Returns true at the end of a sequence.
  bool Handle(std::map<uint64_t, Run>& runs, const reticle_completion& completion) {
    Run& run = runs.at(completion.sequence);
    EXPECT_EQ(completion.tag, run.id + 1000);
    if (completion.kind == RETICLE_COMPLETION_TOKEN) {
      EXPECT_EQ(completion.position, run.request.prompt.size() + run.output.size());
      run.output.push_back(completion.token);
      if (run.output.size() == run.request.output_tokens) {
        EXPECT_TRUE(device_->Cancel(run.id).ok());
      } else if (completion.credits_left == 0) {
        reticle_work work{};
        work.struct_size = sizeof(work);
        work.sequence = run.id;
        work.tag = run.id + 1000;
        work.decode_credits =
            std::min(run.request.credits, run.request.output_tokens - run.granted);
        run.granted += work.decode_credits;
        absl::Status refusal;
        EXPECT_EQ(device_->Submit({&work, 1}, &refusal), 1u) << refusal;
      }
    }
    if (completion.finish != RETICLE_FINISH_NONE) {
      EXPECT_EQ(completion.finish, RETICLE_FINISH_CANCELLED) << completion.message;
    }
    return completion.finish != RETICLE_FINISH_NONE;
  }

  std::unique_ptr<Device> device_;
  uint64_t next_id_ = 1;
  uint32_t next_block_ = 0;
  std::vector<uint32_t> last_blocks_;
};

class CpuDeviceTest : public testing::TestWithParam<TensorType> {};

TEST_P(CpuDeviceTest, SameTokensAloneCutBatchedSharedAndThreaded) {
  const std::string path = TempModel(GetParam());
  Host one(path, 1);
  const uint32_t vocab = one.caps().vocab_size;
  Request greedy{.prompt = Prompt(1, 77, vocab)};
  Request seeded = greedy;
  seeded.temperature = 1.0f;
  const auto alone = one.RunAll({greedy});
  const auto alone_seeded = one.RunAll({seeded});
  ASSERT_EQ(alone[0].size(), 24u);
  EXPECT_NE(alone[0], alone_seeded[0]);

  for (const uint32_t chunk : {1u, 7u, 64u}) {
    Request cut = greedy;
    cut.chunk = chunk;
    EXPECT_EQ(one.RunAll({cut})[0], alone[0]) << chunk;
    cut = seeded;
    cut.chunk = chunk;
    EXPECT_EQ(one.RunAll({cut})[0], alone_seeded[0]) << chunk;
  }

  Request ahead = seeded;
  ahead.credits = 5;
  EXPECT_EQ(one.RunAll({ahead})[0], alone_seeded[0]);

  one.RunAll({greedy});
  Request shared = seeded;
  shared.prefix_tokens = 64;
  shared.prefix_blocks.assign(one.last_blocks().begin(), one.last_blocks().begin() + 4);
  EXPECT_EQ(one.RunAll({shared})[0], alone_seeded[0]);

  std::vector<Request> many;
  for (uint32_t i = 0; i < 62; ++i) {
    many.push_back({.prompt = Prompt(i + 2, 3 + i, vocab), .temperature = 0.7f, .seed = i});
  }
  many.insert(many.begin() + 17, greedy);
  many.insert(many.begin() + 40, seeded);
  const auto together = one.RunAll(many);
  EXPECT_EQ(together[17], alone[0]);
  EXPECT_EQ(together[40], alone_seeded[0]);

  Host two(path, 2, "50");
  EXPECT_EQ(two.RunAll({greedy})[0], alone[0]);
  EXPECT_EQ(two.RunAll(many), together);
}

TEST(CpuDevicePackedTest, MapsTheWeightsThatAnEarlierOpeningStored) {
  const std::string path = TempModel(TensorType::kQ4_0);
  const std::string folder = testing::TempDir() + "cpu_device_test_packed";
  std::filesystem::remove_all(folder);
  const std::string packed = PackedPath(folder, path);
  const Request request{.prompt = Prompt(1, 77, 100)};

  Host first(path, 1, "512", folder);
  const auto expected = first.RunAll({request});
  for (int i = 0; i < 6000 && !std::filesystem::exists(packed); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  ASSERT_TRUE(std::filesystem::exists(packed));
  {
    Host second(path, 2, "512", folder);
    EXPECT_EQ(second.RunAll({request}), expected);
    EXPECT_STREQ(second.caps().model_hash, first.caps().model_hash);
    EXPECT_NE(second.caps().model_hash[0], '\0');
  }
  // Other weights, other tokens: it is this file that is computed with.
  {
    std::fstream file(packed, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(4096);
    file << std::string(std::filesystem::file_size(packed) / 2, '\x11');
  }
  EXPECT_NE(Host(path, 1, "512", folder).RunAll({request}), expected);
  std::filesystem::resize_file(packed, 5000);
  EXPECT_EQ(Host(path, 1, "512", folder).RunAll({request}), expected);
  std::filesystem::remove_all(folder);
}

INSTANTIATE_TEST_SUITE_P(Types, CpuDeviceTest,
                         testing::Values(TensorType::kF32, TensorType::kF16, TensorType::kQ8_0,
                                         TensorType::kQ4_K, TensorType::kQ6_K),
                         [](const auto& info) {
                           return std::string(models::TensorTypeName(info.param));
                         });

}  // namespace
}  // namespace reticle::backends::cpu
