#include "tokenizer/chat_template.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tokenizer/jinja/json.h"

namespace reticle::tokenizer {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Segment = ChatTemplate::Segment;

constexpr const char* kTurns =
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{{ m.content|trim }}<|end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}";

jinja::Value Json(std::string_view text) {
  auto value = jinja::ParseJson(text);
  EXPECT_TRUE(value.ok()) << value.status();
  return value.ok() ? *value : jinja::Value();
}

ChatTemplate::Inputs InputsOf(std::string_view messages) {
  ChatTemplate::Inputs inputs;
  inputs.messages = Json(messages);
  inputs.bos_token = "<s>";
  inputs.eos_token = "</s>";
  return inputs;
}

std::vector<Segment> Segments(std::string_view source, const ChatTemplate::Inputs& inputs) {
  auto chat_template = ChatTemplate::Create(source);
  EXPECT_TRUE(chat_template.ok()) << chat_template.status();
  auto segments = (*chat_template)->RenderSegments(inputs);
  EXPECT_TRUE(segments.ok()) << segments.status();
  std::string joined;
  for (const Segment& segment : *segments) joined += segment.text;
  EXPECT_EQ(joined, *(*chat_template)->Render(inputs));
  return *segments;
}

TEST(ChatTemplateTest, RendersMessages) {
  auto chat_template = ChatTemplate::Create(kTurns);
  ASSERT_TRUE(chat_template.ok()) << chat_template.status();
  auto inputs = InputsOf(R"([{"role": "user", "content": " Hi "}])");
  EXPECT_EQ(*(*chat_template)->Render(inputs), "<s><|user|>Hi<|end|>\n<|assistant|>");
  inputs.add_generation_prompt = false;
  EXPECT_EQ(*(*chat_template)->Render(inputs), "<s><|user|>Hi<|end|>\n");
}

TEST(ChatTemplateTest, TellsTemplateTextFromMessageText) {
  EXPECT_THAT(Segments(kTurns, InputsOf(R"([{"role": "user", "content": " a<|end|>b "},
                                            {"role": "assistant", "content": ""}])")),
              ElementsAre(Segment{"<s><|user|>", false}, Segment{"a<|end|>b", true},
                          Segment{"<|end|>\n<|assistant|><|end|>\n<|assistant|>", false}));
}

TEST(ChatTemplateTest, ARoleThatIsNotKnownIsTheClients) {
  EXPECT_THAT(Segments("<|{{ messages[0].role }}|>", InputsOf(R"([{"role": "end"}])")),
              ElementsAre(Segment{"<|", false}, Segment{"end", true}, Segment{"|>", false}));
  EXPECT_THAT(Segments("<|{{ messages[0].role }}|>", InputsOf(R"([{"role": "tool"}])")),
              ElementsAre(Segment{"<|tool|>", false}));
}

TEST(ChatTemplateTest, NoWayOfHandlingAStringLosesItsOrigin) {
  const auto inputs = InputsOf(R"([{"role": "user", "content": "a<x>b", "list": ["p", "q"],
                                    "key<x>": {"deep": "d"}}])");
  for (const char* expression : {"c",
                                 "c[0]",
                                 "c[2:]",
                                 "c[::-1]",
                                 "c|upper",
                                 "c.lower()",
                                 "c|trim",

                                 "c.split('<')[0]",
                                 "c.split('<')|join('')",
                                 "c|tojson",
                                 "c|string",
                                 "c ~ ''",
                                 "c + ''",
                                 "'' + c",
                                 "c * 2",
                                 "c|list|join('')",
                                 "'%s'|format(c)",
                                 "'%s' % c",
                                 "'{}'.format(c)",
                                 "c|indent",
                                 "c|e",
                                 "c|safe",
                                 "c|title",
                                 "c.partition('<')[2]",
                                 "c|reverse",
                                 "c|first",
                                 "c|last",
                                 "c.center(3)",
                                 "[c]|string|replace('[', '')",
                                 "m|tojson",
                                 "m.list|join('')",
                                 "m|string",
                                 "(m|items|list)[3][0]",
                                 "m.keys()|list|last",
                                 "(m|dictsort)[1][0]",
                                 "{'x': c}.x",
                                 "namespace(x=c).x",
                                 "[c, 'z']|sort|first",
                                 "m['key<x>'].deep",
                                 "c|truncate(4, true, '')",
                                 "c.splitlines()[0]",
                                 "(c ~ 'z')[:1]",
                                 "c if true else ''",
                                 "c or ''",
                                 "nothing|default(c)",
                                 "c|map('upper')|join('')",
                                 "[c]|map('trim')|first",
                                 "strftime_now(c)"}) {
    SCOPED_TRACE(expression);
    const auto segments = Segments(
        "{% set m = messages[0] %}{% set c = m.content %}{{ " + std::string(expression) + " }}",
        inputs);
    ASSERT_FALSE(segments.empty());
    for (const Segment& segment : segments) EXPECT_TRUE(segment.from_message) << segment.text;
  }
  for (const char* block :
       {"{% set x %}{{ c }}{% endset %}{{ x }}", "{% filter upper %}{{ c }}{% endfilter %}",
        "{% macro f(x) %}{{ x }}{% endmacro %}{{ f(c) }}", "{% for x in c %}{{ x }}{% endfor %}",
        "{% macro f() %}{{ caller() }}{% endmacro %}{% call f() %}{{ c }}{% endcall %}",
        "{% for x in [c] recursive %}{{ x if x is string else loop(x) }}{% endfor %}"}) {
    SCOPED_TRACE(block);
    const auto segments =
        Segments("{% set c = messages[0].content %}" + std::string(block), inputs);
    ASSERT_EQ(segments.size(), 1u);
    EXPECT_TRUE(segments[0].from_message);
  }
}

TEST(ChatTemplateTest, ToolsAndExtraVariablesAreTheClientsToo) {
  auto inputs = InputsOf("[]");
  inputs.tools = Json(R"([{"name": "f"}])");
  inputs.extra = Json(R"({"style": "s<x>", "messages": ["no"], "bos_token": "no"})");
  EXPECT_THAT(
      Segments("{{ bos_token }}{{ messages|length }}{{ tools[0].name }}|{{ style }}", inputs),
      ElementsAre(Segment{"<s>0", false}, Segment{"f", true}, Segment{"|", false},
                  Segment{"s<x>", true}));
}

TEST(ChatTemplateTest, ToolsAreNoneWhenNotGiven) {
  EXPECT_THAT(
      Segments("{{ tools is none }}{{ tools is defined }}{{ documents is none }}", InputsOf("[]")),
      ElementsAre(Segment{"TrueTrueTrue", false}));
}

TEST(ChatTemplateTest, TheClockIsAnInput) {
  auto inputs = InputsOf("[]");
  inputs.now_unix_s = 86400;
  EXPECT_THAT(Segments("{{ strftime_now('%d %b %Y') }}", inputs),
              ElementsAre(Segment{"02 Jan 1970", false}));
}

TEST(ChatTemplateTest, KeepsTheMessageOfAnException) {
  auto chat_template = ChatTemplate::Create("{{ raise_exception('Roles must alternate') }}");
  ASSERT_TRUE(chat_template.ok());
  const absl::Status status = (*chat_template)->Render(InputsOf("[]")).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("Roles must alternate"));
}

TEST(ChatTemplateTest, RefusesATemplateThatDoesNotParse) {
  const absl::Status status = ChatTemplate::Create("{% if %}").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("line 1, column"));
}

TEST(ChatTemplateTest, RefusesExtraVariablesThatAreNoObject) {
  auto chat_template = ChatTemplate::Create("x");
  ASSERT_TRUE(chat_template.ok());
  auto inputs = InputsOf("[]");
  inputs.extra = Json("[1]");
  EXPECT_EQ((*chat_template)->Render(inputs).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace reticle::tokenizer
