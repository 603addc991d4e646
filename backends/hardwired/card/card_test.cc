// Rings, firmware and content without a driver: what crosses the shared memory, what happens when
// one side writes nonsense, and how time passes when the host is late or slow.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <random>

#include "backends/hardwired/card/card_config.h"
#include "backends/hardwired/card/card_link.h"
#include "backends/hardwired/card/card_memory.h"
#include "backends/hardwired/card/completions.h"
#include "backends/hardwired/card/firmware.h"
#include "backends/hardwired/card/firmware_loop.h"
#include "backends/hardwired/card/orders.h"

namespace reticle::backends::hardwired {
namespace {

std::shared_ptr<CardMemory> MakeMemory(uint64_t bytes = 8192, uint32_t cells = 64) {
  auto memory = CardMemory::Create(bytes, cells);
  EXPECT_TRUE(memory.ok()) << memory.status();
  return *memory;
}

reticle_work WorkOf(uint64_t sequence, const std::vector<uint32_t>& tokens, uint32_t credits) {
  reticle_work work{};
  work.struct_size = sizeof(work);
  work.sequence = sequence;
  work.tag = sequence * 10;
  work.tokens = tokens.data();
  work.token_count = static_cast<uint32_t>(tokens.size());
  work.decode_credits = credits;
  work.next_token = RETICLE_NO_TOKEN;
  return work;
}

reticle_sampling Greedy() {
  reticle_sampling sampling{};
  sampling.struct_size = sizeof(sampling);
  sampling.top_p = 1;
  sampling.repetition_penalty = 1;
  return sampling;
}

TEST(CheckWordTest, EveryBitCounts) {
  std::vector<unsigned char> bytes(100);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<unsigned char>(i * 37);
  const uint32_t check = CheckWord(bytes.data(), bytes.size());
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    bytes[bit / 8] ^= static_cast<unsigned char>(1 << bit % 8);
    EXPECT_NE(CheckWord(bytes.data(), bytes.size()), check) << bit;
    bytes[bit / 8] ^= static_cast<unsigned char>(1 << bit % 8);
  }
  EXPECT_NE(CheckWord(bytes.data(), 99), check);
}

TEST(CardMemoryTest, AttachesToWhatWasCreatedAndNothingElse) {
  const auto memory = MakeMemory();
  const auto attached = CardMemory::Attach(dup(memory->fd()));
  ASSERT_TRUE(attached.ok()) << attached.status();
  EXPECT_EQ((*attached)->submissions().size(), 8192u);
  EXPECT_EQ((*attached)->completions().size(), 64u);
  CardRegisters& registers = memory->registers();
  registers.submission_bytes = 1ull << 40;
  EXPECT_EQ(CardMemory::Attach(dup(memory->fd())).status().code(), absl::StatusCode::kDataLoss);
  registers.submission_bytes = 8192;
  registers.version = kCardVersion + 1;
  EXPECT_FALSE(CardMemory::Attach(dup(memory->fd())).ok());
  registers.version = kCardVersion;
  EXPECT_TRUE(CardMemory::Attach(dup(memory->fd())).ok());
  // A file whose size may change would let its owner crash us.
  EXPECT_FALSE(CardMemory::Attach(open("/dev/zero", 0)).ok());
}

TEST(OrdersTest, ArriveAsTheyWereSent) {
  const auto memory = MakeMemory();
  OrderWriter writer(memory);
  OrderReader reader(memory);
  std::mt19937 random(7);
  Order order;
  uint64_t written = 0;
  uint64_t read = 0;
  while (read < 3000) {
    std::vector<uint32_t> tokens(1 + random() % 100, static_cast<uint32_t>(written));
    reticle_sampling sampling = Greedy();
    const std::vector<uint32_t> stops(random() % 5, 3);
    const std::vector<reticle_logit_bias> bias(random() % 3, {4, 0.5f});
    const std::vector<uint32_t> mask(2, 0xF0F0F0F0);
    sampling.stop_ids = stops.data();
    sampling.stop_id_count = static_cast<uint32_t>(stops.size());
    sampling.logit_bias = bias.data();
    sampling.logit_bias_count = static_cast<uint32_t>(bias.size());
    sampling.history = tokens.data();
    sampling.history_count = static_cast<uint32_t>(tokens.size());
    reticle_work work = WorkOf(written, tokens, 5);
    if (written % 2 == 0) work.token_mask = mask.data();
    const bool with_sampling = written % 3 != 0;
    while (!writer.WriteWork(work, with_sampling ? &sampling : nullptr, 50, 1)) {
      ASSERT_FALSE(writer.broken());
      ASSERT_TRUE(reader.Read(50, &order));
      ASSERT_EQ(order.sequence, read);
      ASSERT_EQ(order.work.tokens[order.work.token_count - 1], read);
      ASSERT_EQ(order.work.token_mask != nullptr, read % 2 == 0);
      ASSERT_EQ(order.work.sampling != nullptr, read % 3 != 0);
      if (order.work.sampling != nullptr) {
        ASSERT_EQ(order.sampling.history_count, order.work.token_count);
        ASSERT_EQ(order.sampling.history[0], read);
      }
      ++read;
    }
    ++written;
  }
}

// Whatever lies in the shared memory: the reader gives up, it does not crash or hang.
TEST(OrdersTest, NonsenseBreaksTheLinkOnly) {
  std::mt19937 random(11);
  int broken = 0;
  for (int round = 0; round < 400; ++round) {
    const auto memory = MakeMemory(4096, 64);
    OrderWriter writer(memory);
    OrderReader reader(memory);
    std::vector<uint32_t> tokens(random() % 50 + 1, 5);
    const reticle_sampling sampling = Greedy();
    for (int i = 0; i < 5; ++i) writer.WriteWork(WorkOf(1, tokens, 3), &sampling, 100, 0);
    const std::span<std::byte> ring = memory->submissions();
    for (uint32_t i = random() % 4; i < 4; ++i) ring[random() % 1200] = std::byte(random());
    if (round % 3 == 0) {
      memory->registers().submission_tail.store(random() % 2 == 0 ? random() : ~uint64_t{0});
    }
    Order order;
    for (int i = 0; i < 10; ++i) reader.Read(100, &order);
    broken += reader.broken() ? 1 : 0;
    memory->registers().submission_head.store(random());
    writer.WriteWork(WorkOf(1, tokens, 3), &sampling, 100, 0);
  }
  EXPECT_GT(broken, 200);
}

TEST(CompletionsTest, WaitForRoomAndKeepTheirOrder) {
  const auto memory = MakeMemory(8192, 32);
  CompletionWriter writer(memory);
  CompletionReader reader(memory);
  const std::vector<reticle_token_logprob> top = {{3, -0.5f}, {9, -1.5f}, {1, -2.0f}};
  for (uint32_t i = 0; i < 500; ++i) {
    CompletionCell cell{};
    cell.kind = RETICLE_COMPLETION_TOKEN;
    cell.token = i;
    writer.Push(cell, std::span(top).first(i % 4), i % 5 == 0 ? "five" : "");
  }
  ReadCompletion read;
  for (uint32_t i = 0; i < 500; ++i) {
    while (!reader.Read(&read)) writer.Flush();
    ASSERT_EQ(read.cell.token, i);
    ASSERT_EQ(read.top.size(), i % 4);
    if (i % 4 == 3) {
      EXPECT_EQ(read.top[2].token, 1u);
    }
    EXPECT_EQ(read.message, i % 5 == 0 ? "five" : "");
  }
  EXPECT_EQ(reader.errors(), 0u);
}

TEST(CompletionsTest, BadRecordsAreSentAgainOrBreakTheLink) {
  const auto memory = MakeMemory();
  CompletionWriter writer(memory);
  CompletionReader reader(memory);
  writer.set_link_faults(5);
  for (uint32_t i = 0; i < 4; ++i) {
    CompletionCell cell{};
    cell.token = i;
    writer.Push(cell);
  }
  ReadCompletion read;
  for (uint32_t i = 0; i < 4; ++i) {
    int turns = 0;
    while (!reader.Read(&read) && ++turns < 20) writer.Flush();
    ASSERT_EQ(read.cell.token, i);
  }
  EXPECT_EQ(reader.errors(), 5u);
  writer.set_link_faults(UINT64_MAX);
  writer.Push(CompletionCell{});
  for (int i = 0; i < 20; ++i) {
    EXPECT_FALSE(reader.Read(&read));
    writer.Flush();
  }
  EXPECT_TRUE(reader.broken());
}

TEST(CompletionsTest, NonsenseBreaksTheLinkOnly) {
  std::mt19937 random(13);
  for (int round = 0; round < 400; ++round) {
    const auto memory = MakeMemory(4096, 32);
    CompletionWriter writer(memory);
    CompletionReader reader(memory);
    for (uint32_t i = 0; i < 10; ++i) writer.Push(CompletionCell{}, {}, "some text");
    for (int i = 0; i < 6; ++i) {
      auto* const bytes = reinterpret_cast<unsigned char*>(memory->completions().data());
      bytes[random() % 2048] ^= static_cast<unsigned char>(random());
    }
    if (round % 4 == 0) memory->registers().completion_tail.store(random());
    if (round % 4 == 1) memory->registers().resend_cell.store(random());
    if (round % 4 == 1) memory->registers().resend_request.store(random());
    if (round % 4 == 2) memory->registers().completion_head.store(random());
    ReadCompletion read;
    for (int i = 0; i < 40; ++i) {
      reader.Read(&read);
      writer.Flush();
    }
  }
}

// ---- Firmware ----

// Says token 7, and takes its time on a clock of its own.
class SlowContent : public Content {
 public:
  explicit SlowContent(int64_t* now_ns) : now_ns_(now_ns) {}
  int64_t cost_ns = 0;

  void Describe(reticle_capabilities*) const override {}
  bool computes() const override { return true; }
  void Feed(uint32_t, uint32_t, std::span<const uint32_t>, uint64_t, bool) override {
    *now_ns_ += cost_ns;
  }
  absl::StatusOr<sampling::SampledToken> Sample(const sampling::SequenceSampling&, uint32_t,
                                                const uint32_t*) override {
    sampling::SampledToken sampled;
    sampled.token = 7;
    return sampled;
  }
  sampling::SampledToken Score(uint32_t, uint32_t) override { return {}; }
  absl::Status LoadAdapter(uint64_t, const std::string&, float) override {
    return absl::OkStatus();
  }
  absl::Status UnloadAdapter(uint64_t) override { return absl::OkStatus(); }
  absl::Status CheckSeal() override { return absl::OkStatus(); }

 private:
  int64_t* const now_ns_;
};

class FirmwareTest : public ::testing::Test {
 protected:
  FirmwareTest()
      : profile_(*LoadProfile("taalas-hc1")),
        timing_(*TimingModel::Create(profile_)),
        content_(&now_ns_),
        memory_(MakeMemory(1 << 20, 1024)),
        writer_(memory_),
        reader_(memory_) {}

  void Boot(bool computes_ahead, bool stretches) {
    Firmware::Options options;
    reticle_capabilities& caps = options.capabilities;
    caps.struct_size = sizeof(caps);
    caps.vocab_size = 100;
    caps.context_limit = 100'000;
    caps.max_sequences = 4;
    caps.kv_mode = RETICLE_KV_DEVICE_SLOTS;
    caps.kv_token_capacity = 1'000'000;
    caps.max_prefill_chunk = 512;
    caps.max_decode_credits = 10'000;
    caps.max_stop_ids = 4;
    caps.max_logprobs = 4;
    caps.features = RETICLE_FEATURE_TEMPERATURE;
    options.computes_ahead = computes_ahead;
    options.stretches = stretches;
    options.now_ns = [this] { return now_ns_; };
    firmware_ = std::make_unique<Firmware>(options, profile_, timing_, content_, memory_);
  }
  // Submits, and returns the device time of the first token if nothing holds it up.
  int64_t Begin(uint32_t credits) {
    const std::vector<uint32_t> prompt(8, 3);
    const reticle_sampling sampling = Greedy();
    EXPECT_TRUE(writer_.WriteWork(WorkOf(1, prompt, credits), &sampling, 100, now_ns_));
    return now_ns_ + 1'000 + 1'070'000 + 8 * 5'000;
  }
  // Steps until nothing is due at the time that is.
  std::vector<CompletionCell> StepAll() {
    while (firmware_->Step(now_ns_)) {
    }
    std::vector<CompletionCell> cells;
    ReadCompletion read;
    while (reader_.Read(&read)) {
      if (read.cell.kind == RETICLE_COMPLETION_TOKEN) cells.push_back(read.cell);
    }
    return cells;
  }

  int64_t now_ns_ = 1'000'000'000;
  const Profile profile_;
  const TimingModel timing_;
  SlowContent content_;
  std::shared_ptr<CardMemory> memory_;
  OrderWriter writer_;
  CompletionReader reader_;
  std::unique_ptr<Firmware> firmware_;
};

uint64_t NthToken(uint64_t n) { return (n * 2'000'000'000 + 16960) / (2 * 16960); }

// A firmware that is looked at too late shows what was due, with the times at which it was due, and
// is on time again at once.
TEST_F(FirmwareTest, LateWakeUpsCatchUp) {
  Boot(false, false);
  const auto first_ns = static_cast<uint64_t>(Begin(1000));
  uint64_t n = 0;
  std::mt19937 random(5);
  while (n < 1000) {
    now_ns_ += static_cast<int64_t>(random() % 300'000);
    if (random() % 20 == 0) now_ns_ += 5'000'000;
    for (const CompletionCell& cell : StepAll()) {
      ASSERT_EQ(cell.device_time_ns, first_ns + NthToken(n));
      ++n;
    }
    if (n > 0 && n < 1000) {
      // Everything that is due is there.
      EXPECT_GT(firmware_->next_event_ns(), now_ns_);
      EXPECT_LE(firmware_->next_event_ns(), now_ns_ + 60'000);
    }
  }
}

// Nothing is shown before its time, however early it is computed.
TEST_F(FirmwareTest, ComputesAheadAndShowsInTime) {
  Boot(true, true);
  content_.cost_ns = 20'000;
  const auto first_ns = static_cast<uint64_t>(Begin(500));
  uint64_t n = 0;
  while (n < 500) {
    for (const CompletionCell& cell : StepAll()) {
      ASSERT_EQ(cell.device_time_ns, first_ns + NthToken(n));
      ASSERT_LE(cell.device_time_ns + 1'000, static_cast<uint64_t>(now_ns_));
      ++n;
    }
    now_ns_ += 1'000;
  }
  EXPECT_EQ(memory_->registers().stretched_ns.load(), 0u);
}

// A host that needs 100 us for a token of 59 us: device times are the modelled ones, and the
// emulation says by how much it is behind.
TEST_F(FirmwareTest, ASlowHostStretchesTheEmulation) {
  Boot(true, true);
  content_.cost_ns = 100'000;
  const auto first_ns = static_cast<uint64_t>(Begin(2000));
  const int64_t begin_ns = now_ns_;
  uint64_t n = 0;
  while (n < 2000) {
    for (const CompletionCell& cell : StepAll()) {
      ASSERT_EQ(cell.device_time_ns, first_ns + NthToken(n));
      ++n;
    }
    now_ns_ += 1'000;
  }
  const double ratio = static_cast<double>(now_ns_ - begin_ns) /
                       static_cast<double>(first_ns + NthToken(1999) - begin_ns);
  EXPECT_GT(ratio, 1.6);
  const CardRegisters& registers = memory_->registers();
  const double told = 1 + static_cast<double>(registers.stretched_ns.load()) /
                              static_cast<double>(registers.busy_ns.load());
  EXPECT_NEAR(told, ratio, 0.05);
}

// A host that writes orders at random: well-formed records with any content.
TEST_F(FirmwareTest, AnyOrderIsSurvived) {
  std::mt19937 random(17);
  Boot(false, false);
  const std::vector<uint32_t> tokens(600, 120);
  const uint32_t numbers[] = {0, 1, 2, 7, 100, 512, 10'000, UINT32_MAX};
  const auto any = [&] { return numbers[random() % std::size(numbers)]; };
  for (int i = 0; i < 5000; ++i) {
    reticle_work work = WorkOf(random() % 6, tokens, any());
    work.token_count = random() % 2 == 0 ? 0 : random() % 600;
    work.position = random() % 3 == 0 ? any() : 0;
    work.flags = random() % 8 == 0 ? any() : 0;
    work.adapter = random() % 8 == 0 ? any() : 0;
    std::vector<uint32_t> valid(tokens.size(), 5);
    if (random() % 4 != 0) work.tokens = valid.data();
    reticle_sampling sampling = Greedy();
    sampling.temperature = static_cast<float>(any());
    sampling.top_k = any();
    sampling.prompt_tokens = any();
    if (random() % 6 == 0) sampling.logprobs = any();
    writer_.WriteWork(work, random() % 3 == 0 ? nullptr : &sampling, 100,
                      static_cast<int64_t>(random() * any()));
    if (random() % 10 == 0) writer_.WriteCancel(random() % 6, now_ns_);
    now_ns_ += static_cast<int64_t>(random() % 200'000);
    StepAll();
    ASSERT_FALSE(reader_.broken());
  }
  EXPECT_EQ(memory_->registers().failure.load(), 0u);
}

// ---- The greeting ----

TEST(CardLinkTest, OptionsComeBack) {
  const std::vector<std::pair<std::string, std::string>> options = {
      {"a", "1"}, {"path", "/x=y"}, {"empty", ""}};
  EXPECT_EQ(SplitOptions(JoinOptions(options)), options);
  EXPECT_TRUE(SplitOptions("no equals sign").empty());
}

TEST(CardConfigTest, SurvivesTheWayToACardProcess) {
  CardConfig config;
  for (const auto& [name, value] :
       std::vector<std::pair<std::string, std::string>>{{"profile", "groq-lpu"},
                                                        {"content", "replay"},
                                                        {"clock", "virtual"},
                                                        {"params", "ignore"},
                                                        {"sampling", "strict"},
                                                        {"vocab", "77"},
                                                        {"replay_ids", "1,2,3"},
                                                        {"replay_tokens", "9"},
                                                        {"timing.pipeline_depth", "4"}}) {
    ASSERT_TRUE(config.Set(name, value).ok()) << name;
  }
  CardConfig copy;
  for (const auto& [name, value] : config.ToOptions()) {
    const auto taken = copy.Set(name, value);
    ASSERT_TRUE(taken.ok() && *taken) << name;
  }
  EXPECT_EQ(copy.ToOptions(), config.ToOptions());
  EXPECT_EQ(copy.replay_text, config.replay_text);
  EXPECT_FALSE(*config.Set("colour", "red"));
}

}  // namespace
}  // namespace reticle::backends::hardwired
