#include "loadtest/workload.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <set>

#include "loadtest/compare.h"
#include "loadtest/embedded_files.h"
#include "loadtest/json_scanner.h"
#include "loadtest/report.h"

namespace reticle::loadtest {
namespace {

using ::testing::HasSubstr;

std::string WriteTemporary(const std::string& name, const std::string& text) {
  const std::string path = testing::TempDir() + "/" + name;
  std::ofstream(path) << text;
  return path;
}

int64_t CountWords(const std::string& text) {
  return text.empty() ? 0 : 1 + std::count(text.begin(), text.end(), ' ');
}

PlannedConversation Plan(const Scenario& scenario, uint64_t index, WordScale scale = {}) {
  const auto workload = Workload::Create(scenario);
  EXPECT_TRUE(workload.ok()) << workload.status();
  (*workload)->set_word_scale(scale);
  return (*workload)->Make(index);
}

TEST(WorkloadTest, SamePlanForTheSameSeedOthersForOthers) {
  Scenario scenario;
  scenario.prompt_tokens = Distribution::Fixed(40);
  const std::string text = Plan(scenario, 3).turns[0].text;
  EXPECT_EQ(Plan(scenario, 3).turns[0].text, text);
  EXPECT_NE(Plan(scenario, 4).turns[0].text, text);
  scenario.seed = 2;
  EXPECT_NE(Plan(scenario, 3).turns[0].text, text);
}

TEST(WorkloadTest, PromptsHaveTheLengthThatTheScaleGives) {
  Scenario scenario;
  scenario.prompt_tokens = Distribution::Fixed(100);
  scenario.output_tokens = Distribution::Fixed(7);
  const PlannedConversation plan = Plan(scenario, 0, {.per_word = 1.25, .fixed = 10});
  EXPECT_EQ(CountWords(plan.turns[0].text), 72);
  EXPECT_EQ(plan.turns[0].max_tokens, 7);
}

TEST(WorkloadTest, SharedPrefixesAreSharedAndCountAsPrompt) {
  Scenario scenario;
  scenario.prompt_tokens = Distribution::Fixed(100);
  scenario.shared_prefixes = 3;
  scenario.shared_prefix_tokens = 60;
  std::set<std::string> prefixes;
  std::set<std::string> texts;
  for (uint64_t i = 0; i < 50; ++i) {
    const PlannedConversation plan = Plan(scenario, i);
    EXPECT_EQ(CountWords(plan.system), 60);
    EXPECT_EQ(CountWords(plan.turns[0].text), 40);
    prefixes.insert(plan.system);
    texts.insert(plan.turns[0].text);
  }
  EXPECT_EQ(prefixes.size(), 3u);
  EXPECT_EQ(texts.size(), 50u);
}

TEST(WorkloadTest, SharesOfClientsBehaveAsAsked) {
  Scenario scenario;
  scenario.disconnect_share = 0.3;
  scenario.disconnect_after = Distribution::Fixed(5);
  scenario.slow_share = 0.2;
  scenario.slow_bytes_per_s = 77;
  int leaving = 0;
  int slow = 0;
  const auto workload = Workload::Create(scenario);
  for (uint64_t i = 0; i < 5000; ++i) {
    const PlannedTurn turn = (*workload)->Make(i).turns[0];
    leaving += turn.disconnect_after_events == 5;
    slow += turn.read_bytes_per_s == 77;
  }
  EXPECT_NEAR(leaving, 1500, 150);
  EXPECT_NEAR(slow, 1000, 130);
}

TEST(WorkloadTest, TraceBlocksWithTheSameHashAreTheSameText) {
  Scenario scenario;
  scenario.mode = ArrivalMode::kTrace;
  scenario.trace = WriteTemporary(
      "blocks.jsonl",
      R"({"timestamp": 0, "input_length": 1200, "output_length": 9, "hash_ids": [1, 2, 3]})"
      "\n"
      R"({"timestamp": 10, "input_length": 1100, "output_length": 3, "hash_ids": [1, 2, 4]})"
      "\n");
  const PlannedConversation a = Plan(scenario, 0);
  const PlannedConversation b = Plan(scenario, 1);
  EXPECT_EQ(CountWords(a.turns[0].text), 1200);
  EXPECT_EQ(CountWords(b.turns[0].text), 1100);
  EXPECT_EQ(a.turns[0].max_tokens, 9);
  size_t common = 0;
  while (a.turns[0].text[common] == b.turns[0].text[common]) ++common;
  EXPECT_GE(CountWords(a.turns[0].text.substr(0, common)), 1024);
  EXPECT_LE(CountWords(a.turns[0].text.substr(0, common)), 1030);
}

TEST(TraceTest, ErrorsNameLineAndField) {
  const auto error = [](const std::string& text) {
    return std::string(ParseTrace(text, "t.jsonl").status().message());
  };
  const std::string good = R"({"timestamp": 5, "input_length": 1, "output_length": 1})"
                           "\n";
  EXPECT_EQ(error(good + "\n{\"timestamp\": 5, \"output_length\": 1}\n"),
            "t.jsonl, line 3: input_length is missing");
  EXPECT_EQ(error("{\"input_length\": 1, \"output_length\": 1}"),
            "t.jsonl, line 1: timestamp is missing");
  EXPECT_EQ(error(R"({"timestamp": 5, "input_length": 1, "output_length": 0})"),
            "t.jsonl, line 1: output_length is 0; it must be between 1 and 10000000");
  EXPECT_EQ(error(R"({"timestamp": 5, "input_length": "9", "output_length": 1})"),
            "t.jsonl, line 1: input_length is no whole number");
  EXPECT_EQ(error(R"({"timestamp": -5, "input_length": 9, "output_length": 1})"),
            "t.jsonl, line 1: timestamp is no number of ms from 0 on");
  EXPECT_EQ(
      error(R"({"timestamp": 5, "input_length": 9, "output_length": 1, "hash_ids": [1, -2]})"),
      "t.jsonl, line 1: hash_ids[1] is no whole number from 0 on");
  EXPECT_THAT(error(good + "[1]\n"), HasSubstr("t.jsonl, line 2: no JSON object"));
  EXPECT_EQ(error("\n\n"), "t.jsonl holds no requests");
}

TEST(TraceTest, TimesAreSortedAndBeginAtZero) {
  const auto trace = ParseTrace(
      "{\"timestamp\": 700, \"input_length\": 2, \"output_length\": 1, \"extra\": {}}\n"
      "{\"timestamp\": 500.5, \"input_length\": 1, \"output_length\": 1}\n",
      "t");
  ASSERT_TRUE(trace.ok()) << trace.status();
  ASSERT_EQ(trace->entries.size(), 2u);
  EXPECT_EQ(trace->entries[0].input_length, 1);
  EXPECT_EQ(trace->entries[0].timestamp_ms, 0);
  EXPECT_DOUBLE_EQ(trace->entries[1].timestamp_ms, 199.5);
}

TEST(DatasetTest, ReadsShareGpt) {
  const auto list = ParseShareGpt(
      R"([{"conversations":[{"from":"system","value":"Be kind."},{"from":"human","value":"Hi \"you\""},
          {"from":"gpt","value":"one two  three"},{"from":"human","value":"More"}]},
          {"conversations":[{"from":"gpt","value":"nobody asked"}]},
          {"messages":[{"role":"user","content":"Yes?"},{"role":"assistant","content":"No."}]}])",
      "d.json");
  ASSERT_TRUE(list.ok()) << list.status();
  ASSERT_EQ(list->size(), 2u);
  EXPECT_EQ((*list)[0].system, "Be kind.");
  ASSERT_EQ((*list)[0].turns.size(), 2u);
  EXPECT_EQ((*list)[0].turns[0].text, "Hi \"you\"");
  EXPECT_EQ((*list)[0].turns[0].reply_words, 3);
  EXPECT_EQ((*list)[0].turns[1].reply_words, 0);
  EXPECT_EQ((*list)[1].turns[0].text, "Yes?");
}

TEST(DatasetTest, ErrorsNameTheConversation) {
  EXPECT_EQ(ParseShareGpt(R"([{"conversations":[]},{"conversations":[{"from":"human"}]}])", "d")
                .status()
                .message(),
            "d, conversation 1: a message lacks \"from\" or \"value\"");
  EXPECT_FALSE(ParseShareGpt("{}", "d").ok());
  EXPECT_FALSE(ParseShareGpt("[]", "d").ok());
}

TEST(DatasetTest, TurnsBecomePlansWithTheRecordedLengths) {
  Scenario scenario;
  scenario.source = PromptSource::kShareGpt;
  scenario.output_tokens = Distribution::Fixed(0);
  scenario.dataset = WriteTemporary(
      "share.json",
      R"([{"conversations":[{"from":"human","value":"A"},{"from":"gpt","value":"1 2 3 4"},
          {"from":"human","value":"B"}]}])");
  const PlannedConversation plan = Plan(scenario, 9, {.per_word = 1.5, .fixed = 0});
  ASSERT_EQ(plan.turns.size(), 2u);
  EXPECT_EQ(plan.turns[0].text, "A");
  EXPECT_EQ(plan.turns[0].max_tokens, 6);
  EXPECT_EQ(plan.turns[1].max_tokens, 0);
}

TEST(BodyWriterTest, WritesWhatTheServerReads) {
  Scenario scenario;
  scenario.extra_body = R"({"top_p":0.5})";
  const std::vector<Message> messages = {{"system", "S"}, {"user", "a\"b"}};
  EXPECT_EQ(BodyWriter(scenario, "m").Body(messages, 5),
            R"({"model":"m","messages":[{"role":"system","content":"S"},{"role":"user",)"
            R"("content":"a\"b"}],"max_tokens":5,"temperature":0,"ignore_eos":true,"stream":true,)"
            R"("stream_options":{"include_usage":true},"top_p":0.5})");
  scenario = Scenario();
  scenario.api = Api::kCompletions;
  scenario.stream = false;
  scenario.ignore_eos = false;
  scenario.temperature = 0.7;
  EXPECT_EQ(BodyWriter(scenario, "m").Body(messages, 0),
            R"({"model":"m","prompt":"S\na\"b","temperature":0.7})");
}

TEST(ScenarioTest, EveryBuiltInScenarioIsValid) {
  ASSERT_GE(BuiltInScenarios().size(), 12u);
  for (const BuiltInScenario& built_in : BuiltInScenarios()) {
    Scenario scenario;
    EXPECT_TRUE(LoadScenarioByName(std::string(built_in.name), scenario).ok()) << built_in.name;
    EXPECT_TRUE(scenario.Validate().ok()) << built_in.name << ": " << scenario.Validate();
    EXPECT_EQ(scenario.name, built_in.name);
    EXPECT_FALSE(scenario.description.empty());
    EXPECT_FALSE(scenario.slos.empty()) << built_in.name;
  }
}

TEST(ScenarioTest, FilesSayWhereTheyAreWrong) {
  const auto error = [](const std::string& toml) {
    Scenario scenario;
    return std::string(LoadScenario(toml, "s.toml", scenario).message());
  };
  EXPECT_EQ(error("name = \"x\"\n[arrival]\nspeed = 3\n"),
            "s.toml, line 3: there is no setting \"arrival.speed\"");
  EXPECT_EQ(error("[arrival]\nmode = \"often\"\n"),
            "s.toml, line 2: arrival.mode: \"often\" is none of closed, poisson, gamma, constant, "
            "ramp, trace");
  EXPECT_EQ(error("[prompt]\ntokens = \"zipf:3\"\n").substr(0, 32),
            "s.toml, line 2: prompt.tokens: \"");
  EXPECT_EQ(error("[run]\nduration = []\n"),
            "s.toml, line 2: the value of \"run.duration\" has the wrong type");
  EXPECT_THAT(error("[run\n"), HasSubstr("s.toml, line 1: "));
}

TEST(ScenarioTest, SettingsGoFromTextToScenarioAndBack) {
  Scenario scenario;
  ASSERT_TRUE(LoadScenario("[arrival]\nmode = \"ramp\"\nrate = 2\nrate_end = 7.5\n[client]\n"
                           "spin = true\nthreads = 3\n[run]\nduration = \"1500ms\"\n"
                           "[prompt]\ntokens = 99\n[slo]\nbounds = [\"ttft<=1s\", \"errors<=0\"]\n",
                           "s", scenario)
                  .ok());
  EXPECT_EQ(scenario.mode, ArrivalMode::kRamp);
  EXPECT_EQ(scenario.rate_end, 7.5);
  EXPECT_TRUE(scenario.spin);
  EXPECT_EQ(scenario.threads, 3);
  EXPECT_EQ(scenario.duration_ns, 1'500'000'000);
  EXPECT_EQ(scenario.prompt_tokens.ToString(), "99");
  EXPECT_EQ(scenario.slo_texts, (std::vector<std::string>{"ttft<=1s", "errors<=0"}));
  for (const Setting& setting : ScenarioSettings(scenario)) {
    if (setting.flag == "--arrival") {
      EXPECT_EQ(setting.default_text, "ramp");
    }
    if (setting.flag == "--duration") {
      EXPECT_EQ(setting.default_text, "1.5s");
    }
  }
}

TEST(ScenarioTest, ValidateNamesTheFlag) {
  const auto error = [](const std::function<void(Scenario&)>& change) {
    Scenario scenario;
    change(scenario);
    return std::string(scenario.Validate().message());
  };
  EXPECT_EQ(error([](Scenario&) {}), "");
  EXPECT_THAT(error([](Scenario& s) { s.url = "ftp://x"; }), HasSubstr("--url"));
  EXPECT_THAT(error([](Scenario& s) { s.mode = ArrivalMode::kRamp; }), HasSubstr("--rate-end"));
  EXPECT_THAT(error([](Scenario& s) { s.mode = ArrivalMode::kTrace; }), HasSubstr("--trace"));
  EXPECT_THAT(error([](Scenario& s) { s.users = 0; }), HasSubstr("--users"));
  EXPECT_THAT(error([](Scenario& s) { s.warmup_ns = s.duration_ns; }), HasSubstr("--warmup"));
  EXPECT_THAT(error([](Scenario& s) { s.slow_share = 1.5; }), HasSubstr("--slow-share"));
  EXPECT_THAT(error([](Scenario& s) { s.slo_texts = {"x"}; }), HasSubstr("SLO"));
}

// A result with a rate and a p99 TTFT.
std::string Result(double tokens_per_s, int64_t ttft_ns) {
  Recorder recorder(Recorder::Options{});
  for (int i = 0; i < 10; ++i) recorder.ttft.Record(ttft_ns);
  Report report;
  report.name = "r";
  report.window_s = 1;
  FillReport(recorder, report);
  report.output_tokens_per_s = tokens_per_s;
  return FormatJson(report);
}

TEST(CompareTest, FindsWhatGotWorse) {
  const auto same = CompareReports(Result(100, 5'000'000), "a", Result(100, 5'000'000), "b");
  ASSERT_TRUE(same.ok()) << same.status();
  EXPECT_TRUE(same->Regressions(0).empty());
  const auto worse = CompareReports(Result(100, 5'000'000), "a", Result(50, 4'000'000), "b");
  ASSERT_TRUE(worse.ok());
  ASSERT_EQ(worse->Regressions(0.1).size(), 1u);
  EXPECT_EQ(worse->Regressions(0.1)[0]->name, "output tokens/s");
  EXPECT_DOUBLE_EQ(worse->Regressions(0.1)[0]->worse, 1);
  EXPECT_TRUE(worse->Regressions(1.5).empty());
  const auto slower = CompareReports(Result(100, 5'000'000), "a", Result(100, 6'000'000), "b");
  EXPECT_EQ(slower->Regressions(0.1).size(), 2u);
  EXPECT_THAT(FormatComparison(*slower, false), HasSubstr("worse"));
}

TEST(CompareTest, RefusesWhatIsNoResult) {
  EXPECT_THAT(CompareReports("{}", "a.json", Result(1, 1), "b").status().message(),
              HasSubstr("a.json is no result"));
  EXPECT_THAT(CompareReports(Result(1, 1), "a", "nope", "b.json").status().message(),
              HasSubstr("b.json is no JSON"));
}

TEST(ReportTest, JsonAndPageAreWellFormed) {
  Recorder recorder(Recorder::Options{});
  Request request;
  request.intended_ns = 1;
  request.outcome.error = ErrorKind::kHttpStatus;
  request.outcome.code = 500;
  request.outcome.message = "</script><b>\"\n";
  recorder.Finished(request);
  Report report;
  report.name = "<x>";
  report.window_s = 1;
  report.threads.resize(2);
  report.server_cpu_s = 1;
  report.settings = {{"--rate", "5"}};
  report.notes = {"n"};
  FillReport(recorder, report);
  const std::string text = FormatJson(report);
  JsonScanner json(text);
  json.Skip();
  EXPECT_TRUE(json.AtEnd()) << text;
  const std::string page = FormatPage(report);
  EXPECT_EQ(page.find("@RESULT@"), std::string::npos);
  EXPECT_EQ(page.find("</script><b>"), std::string::npos);
  EXPECT_EQ(page.find("http://www"), std::string::npos);
  EXPECT_THAT(page, HasSubstr("</html>"));
  EXPECT_THAT(FormatTable(report, false), HasSubstr("http 500"));
}

}  // namespace
}  // namespace reticle::loadtest
