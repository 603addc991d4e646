#include "tokenizer/jinja/template.h"

#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tokenizer/jinja/json.h"

namespace reticle::tokenizer::jinja {
namespace {

using ::testing::HasSubstr;

constexpr const char* kTestdata = "tokenizer/jinja/testdata/";

std::string ReadFile(const std::string& name) {
  std::ifstream file(kTestdata + name, std::ios::binary);
  EXPECT_TRUE(file.is_open()) << name;
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

const Value& Golden() {
  static const Value* const golden = [] {
    auto parsed = ParseJson(ReadFile("golden.json"));
    EXPECT_TRUE(parsed.ok()) << parsed.status();
    return new Value(parsed.ok() ? *parsed : Value(Dict()));
  }();
  return *golden;
}

const Value& Field(const Value& object, std::string_view name) {
  static const Value* const missing = new Value();
  const Value* const found = object.dict().Find(name);
  EXPECT_NE(found, nullptr) << name;
  return found == nullptr ? *missing : *found;
}

Template::Variables AsVariables(const Value& object) {
  Template::Variables variables;
  for (const auto& [name, value] : object.dict().items()) {
    variables.emplace_back(name.text().str(), value);
  }
  return variables;
}

absl::StatusOr<std::string> Render(std::string_view source,
                                   const Template::Variables& variables = {},
                                   const Limits& limits = {}, int64_t now = 0) {
  auto parsed = Template::Create(source, limits);
  if (!parsed.ok()) return parsed.status();
  auto text = (*parsed)->Render(variables, now);
  if (!text.ok()) return text.status();
  return text->str();
}

std::string ErrorOf(std::string_view source, const Template::Variables& variables = {}) {
  return std::string(Render(source, variables).status().message());
}

void ExpectGolden(const Value& expected, const absl::StatusOr<std::string>& got) {
  if (const Value* const text = expected.dict().Find(std::string_view("expected"))) {
    ASSERT_TRUE(got.ok()) << got.status();
    EXPECT_EQ(*got, text->view());
  } else {
    ASSERT_FALSE(got.ok()) << *got;
    EXPECT_THAT(std::string(got.status().message()),
                HasSubstr(std::string(Field(expected, "error").view())));
  }
}

TEST(TemplateGoldenTest, SnippetsRenderAsPythonRendersThem) {
  const auto variables = AsVariables(Field(Golden(), "variables"));
  const int64_t now = Field(Golden(), "now").integer();
  const auto& snippets = Field(Golden(), "snippets").items();
  ASSERT_GT(snippets.size(), 150u);
  for (const Value& snippet : snippets) {
    const std::string_view source = Field(snippet, "template").view();
    SCOPED_TRACE(std::string(source));
    ExpectGolden(snippet, Render(source, variables, {}, now));
  }
}

TEST(TemplateGoldenTest, ChatsRenderAsPythonRendersThem) {
  const auto& conversations = Field(Golden(), "conversations").items();
  const auto& extras = Field(Golden(), "extras").items();
  const auto& chats = Field(Golden(), "chats").items();
  ASSERT_GT(chats.size(), 300u);
  for (const Value& chat : chats) {
    const auto conversation = static_cast<size_t>(Field(chat, "conversation").integer());
    const auto extra = static_cast<size_t>(Field(chat, "extra").integer());
    const std::string name = Field(chat, "template").text().str();
    SCOPED_TRACE(testing::Message() << name << " conversation " << conversation << " extra "
                                    << extra << " tools " << Field(chat, "with_tools").boolean());
    auto variables = AsVariables(extras[extra]);
    variables.emplace_back("messages", conversations[conversation]);
    variables.emplace_back("tools", Field(chat, "with_tools").boolean() ? Field(Golden(), "tools")
                                                                        : Value(Value::None{}));
    variables.emplace_back("documents", Value(Value::None{}));
    variables.emplace_back("add_generation_prompt", Value(extra == 0));
    variables.emplace_back("bos_token", Value("<s>"));
    variables.emplace_back("eos_token", Value("</s>"));
    ExpectGolden(chat, Render(ReadFile("templates/" + name), variables, {},
                              Field(Golden(), "now").integer()));
  }
}

TEST(TemplateErrorTest, SyntaxErrorsTellLineAndColumn) {
  EXPECT_EQ(ErrorOf("ab\n {{ 1 + }}"),
            "line 2, column 9: expected an expression, got the end of "
            "the print statement");
  EXPECT_EQ(ErrorOf("{% if x %}\nq"),
            "line 2, column 2: expected a tag 'endif', got the end of "
            "the template");
  EXPECT_EQ(ErrorOf("a\nb {# c"), "line 2, column 3: comment is not closed");
  EXPECT_EQ(ErrorOf("{{ (1] }}"), "line 1, column 6: unexpected ']', expected ')'");
  EXPECT_EQ(ErrorOf("{% include 'x' %}"), "line 1, column 4: unknown tag 'include'");
  EXPECT_EQ(ErrorOf("{{ 99999999999999999999 }}"),
            "line 1, column 4: integer does not fit in 64 bits");
  EXPECT_EQ(ErrorOf("{{ '\\ud800' }}"), "line 1, column 7: escape in a string is not a character");
  EXPECT_EQ(ErrorOf("{% for x in y %}{% endfor %}{% continue %}"),
            "line 1, column 32: 'continue' outside a loop");
}

TEST(TemplateErrorTest, RuntimeErrorsTellTheLineAndKeepTheTemplatesMessage) {
  EXPECT_EQ(ErrorOf("\n\n{{ raise_exception('no \"way\"') }}"), "line 3: no \"way\"");
  EXPECT_EQ(ErrorOf("{{ x.y }}"), "line 1: 'x' is undefined");
  EXPECT_EQ(ErrorOf("{{ {}.x.y }}"), "line 1: 'dict object' has no attribute 'x'");
  EXPECT_EQ(ErrorOf("{{ [].append(1) }}"),
            "line 1: access to attribute 'append' of 'list' object is unsafe.");
  EXPECT_EQ(ErrorOf("{{ 'a' + 1 }}"), "line 1: can only concatenate str (not \"int\") to str");
  EXPECT_EQ(ErrorOf("{{ 1|nothing }}"), "line 1: No filter named 'nothing'.");
  EXPECT_EQ(Render("{{ 9223372036854775807 + 1 }}").status().code(), absl::StatusCode::kOutOfRange);
}

// Each takes too much of something; none may take long, overflow the stack or exhaust memory.
TEST(TemplateLimitTest, HostileTemplatesAreStopped) {
  const std::string loop10 = "{% for a in range(99999) %}{% for b in range(99999) %}";
  const std::vector<std::string> sources = {
      "{{ " + std::string(5000, '(') + "1" + std::string(5000, ')') + " }}",
      "{{ " + std::string(5000, '-') + "1 }}",
      "{{ 1" + std::string(5000, '+') + "1 }}",
      "{{ x" +
          [] {
            std::string s;
            for (int i = 0; i < 5000; ++i) s += ".a";
            return s;
          }() +
          " }}",
      "{{ x" +
          [] {
            std::string s;
            for (int i = 0; i < 5000; ++i) s += "|d";
            return s;
          }() +
          " }}",
      "{{ 0" +
          [] {
            std::string s;
            for (int i = 0; i < 5000; ++i) s += " or 0";
            return s;
          }() +
          "}}",
      [] {
        std::string s;
        for (int i = 0; i < 5000; ++i) s += "{% if 1 %}";
        return s;
      }(),
      [] {
        std::string s;
        for (int i = 0; i < 5000; ++i) s += "{% set ";
        return s;
      }(),
      "{{ " +
          [] {
            std::string s;
            for (int i = 0; i < 5000; ++i) s += "not ";
            return s;
          }() +
          "1 }}",
      loop10 + "{% endfor %}{% endfor %}",
      loop10 + "xxxxxxxxxxxxxxxx{% endfor %}{% endfor %}",
      "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
      "{% macro m() %}{% call m() %}{{ caller() }}{% endcall %}{% endmacro %}{{ m() }}",
      "{% for x in [[1]] recursive %}{{ loop([[1]]) }}{% endfor %}",
      "{{ 'a' * 9223372036854775807 }}",
      "{{ [1] * 9223372036854775807 }}",
      "{{ 'a'.center(9223372036854775807) }}",
      "{{ 'a'|indent(9223372036854775807) }}",
      "{{ '%999999999999s' % 'a' }}",
      "{{ '{:999999999999}'.format('a') }}",
      "{{ [1]|batch(9223372036854775807, 1)|list }}",
      "{{ [1]|slice(9223372036854775807)|list }}",
      "{{ 'a\t'.expandtabs(9223372036854775807) }}",
      "{{ 'a'.zfill(9223372036854775807) }}",
      "{{ range(9223372036854775807) }}",
      "{% set ns = namespace(s='aaaaaaaa') %}{% for i in range(64) %}{% set ns.s = ns.s + ns.s %}"
      "{% endfor %}",
      "{% set ns = namespace(s=[1]) %}{% for i in range(99) %}{% set ns.s = [ns.s, ns.s] %}"
      "{% endfor %}{{ ns.s|tojson }}",
      "{% set ns = namespace(s=[1]) %}{% for i in range(99) %}{% set ns.s = [ns.s, ns.s] %}"
      "{% endfor %}{{ ns.s }}",
      "{% set a = namespace(s=[1]) %}{% set b = namespace(s=[1]) %}{% for i in range(99) %}"
      "{% set a.s = [a.s, a.s] %}{% set b.s = [b.s, b.s] %}{% endfor %}{{ a.s == b.s }}",
      "{% set ns = namespace(s=[1]) %}{% for i in range(9999) %}{% set ns.s = [ns.s] %}"
      "{% endfor %}",
      "{% set ns = namespace(s={}) %}{% for i in range(9999) %}{% set ns.s = {'a': ns.s} %}"
      "{% endfor %}",
      "{% set s = 'a' * 1000000 %}{% for i in range(99999) %}{{ s|length }}{% endfor %}",
      "{% set s = 'a' * 1000000 %}{% for i in range(99999) %}{{ s.find('b') }}{% endfor %}",
      "{% set s = 'a' * 1000000 %}{{ ([s] * 100000)|join }}",
      "{% set s = 'a' * 100000 %}{{ s|replace('', s) }}",
      "{% set l = range(99999)|list %}{% for i in l %}{{ l == l + [1] }}{% endfor %}",
      "{{ (('a' * 1000000) ~ 'b').find(('a' * 500000) ~ 'c') }}",
      "{{ (('a' * 500000) ~ 'c') in ('a' * 1000000) }}",
      "{{ ('a' * 1000000).strip(('b' * 1000000) ~ 'a') }}",
      "{% set l = range(9999)|list %}{% for i in l %}{% for j in l %}{% endfor %}{% endfor %}",
      "{% set l = range(99999)|list %}{{ l|unique|list|length }}",
  };
  for (const std::string& source : sources) {
    SCOPED_TRACE(source.substr(0, 120));
    const auto rendered = Render(source);
    EXPECT_FALSE(rendered.ok());
  }
}

TEST(TemplateLimitTest, LimitsAreTheirOwnStatusCode) {
  Limits limits;
  limits.max_output_bytes = 10;
  EXPECT_EQ(Render("{{ 'a' * 11 }}", {}, limits).status().code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(Render("0123456789a", {}, limits).status().code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(Render("0123456789", {}, limits).ok());
  limits = Limits();
  limits.max_steps = 100;
  EXPECT_EQ(Render("{% for i in range(99) %}{{ i }}{% endfor %}", {}, limits).status().code(),
            absl::StatusCode::kResourceExhausted);
  limits = Limits();
  limits.max_allocated_bytes = 1000;
  EXPECT_EQ(Render("{% set x = 'a' * 1001 %}", {}, limits).status().code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(Template::Create(std::string(Template::kMaxSourceBytes + 1, 'a')).status().code(),
            absl::StatusCode::kResourceExhausted);
}

TEST(TemplateLimitTest, CyclesThroughNamespacesAreFreed) {
  // LeakSanitizer is what would object.
  EXPECT_EQ(*Render("{% set a = namespace() %}{% set a.self = [a] %}"
                    "{% for x in [a] %}{% set a.loop = loop %}{{ loop.changed(loop) }}"
                    "{% macro m() %}{{ x }}{% endmacro %}{% set a.m = m %}{% endfor %}ok"),
            "Trueok");
}

TEST(TemplateLimitTest, AnUnusualNumberOfStepsIsNotNeededForALongChat) {
  Value::List messages;
  for (int i = 0; i < 2000; ++i) {
    messages.push_back(Value(Value::Object{{"role", Value(i % 2 == 0 ? "user" : "assistant")},
                                           {"content", Value("message " + std::to_string(i))}}));
  }
  Template::Variables variables = {{"messages", Value(std::move(messages))},
                                   {"tools", Value(Value::None{})},
                                   {"bos_token", Value("<s>")},
                                   {"eos_token", Value("</s>")},
                                   {"add_generation_prompt", Value(true)}};
  for (const char* name :
       {"alternating", "headers_with_tools", "turns_with_thoughts", "typed_functions"}) {
    const auto rendered = Render(ReadFile("templates/" + std::string(name) + ".jinja"), variables);
    ASSERT_TRUE(rendered.ok()) << name << rendered.status();
    EXPECT_THAT(*rendered, HasSubstr("message 1999"));
  }
}

// Random damage to real templates: any result will do, as long as there is one.
TEST(TemplateFuzzTest, MutatedTemplatesNeverCrash) {
  std::vector<std::string> seeds;
  for (const char* name :
       {"alternating", "headers_with_tools", "turns_with_thoughts", "typed_functions"}) {
    seeds.push_back(ReadFile("templates/" + std::string(name) + ".jinja"));
  }
  for (const Value& snippet : Field(Golden(), "snippets").items()) {
    seeds.push_back(Field(snippet, "template").text().str());
  }
  Template::Variables variables = AsVariables(Field(Golden(), "variables"));
  variables.emplace_back("messages", Field(Golden(), "conversations").items()[14]);
  variables.emplace_back("tools", Field(Golden(), "tools"));
  const std::vector<std::string> pieces = {"{%",
                                           "%}",
                                           "{{",
                                           "}}",
                                           "-",
                                           "+",
                                           "(",
                                           ")",
                                           "[",
                                           "]",
                                           "|",
                                           ".",
                                           ",",
                                           "'",
                                           "\"",
                                           "\\",
                                           " if ",
                                           " else ",
                                           " for ",
                                           " in ",
                                           " is ",
                                           " not ",
                                           "{% endif %}",
                                           "{% endfor %}",
                                           "~",
                                           "**",
                                           "loop",
                                           "messages",
                                           "9223372036854775807",
                                           "-1",
                                           "0",
                                           "namespace()",
                                           "caller()",
                                           "\xC3",
                                           "{#",
                                           "#}",
                                           "{% raw %}",
                                           "{% break %}",
                                           "{% set x %}",
                                           "|tojson",
                                           "|list",
                                           "|sort",
                                           "::",
                                           "*",
                                           "%"};
  Limits limits;
  limits.max_steps = 20000;
  limits.max_allocated_bytes = size_t{8} << 20;
  std::mt19937 random(20240229);
  const auto below = [&random](size_t n) { return static_cast<size_t>(random() % n); };
  size_t rendered = 0;
  for (int round = 0; round < 4000; ++round) {
    std::string source = seeds[below(seeds.size())];
    for (size_t edits = 1 + below(4); edits > 0 && !source.empty(); --edits) {
      const size_t at = below(source.size());
      switch (below(4)) {
        case 0:
          source.erase(at, 1 + below(8));
          break;
        case 1:
          source.insert(at, pieces[below(pieces.size())]);
          break;
        case 2:
          source.insert(at, source.substr(below(source.size()), below(40)));
          break;
        default:
          source.replace(at, 1 + below(4), pieces[below(pieces.size())]);
      }
    }
    SCOPED_TRACE(source);
    const auto result = Render(source, variables, limits);
    rendered += result.ok() ? 1 : 0;
    if (!result.ok()) {
      EXPECT_NE(result.status().message(), "");
    }
  }
  EXPECT_GT(rendered, 100u);
}

TEST(TemplateTest, IsSharedByThreadsBecauseItIsImmutable) {
  auto parsed = Template::Create("{{ range(3)|list }}{{ namespace(a=x).a }}");
  ASSERT_TRUE(parsed.ok());
  const std::unique_ptr<const Template> shared = *std::move(parsed);
  EXPECT_EQ((*shared->Render({{"x", Value(1)}})).str(), "[0, 1, 2]1");
  EXPECT_EQ((*shared->Render({{"x", Value(2)}})).str(), "[0, 1, 2]2");
}

}  // namespace
}  // namespace reticle::tokenizer::jinja
