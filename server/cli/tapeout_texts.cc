#include "server/cli/tapeout_texts.h"

#include <algorithm>
#include <cstdint>

#ifdef RETICLE_HOUSE_TEXTS
#define RETICLE_INCLUDE_TEXT(name, file)    \
  __asm__(                                  \
      ".section .rodata\n"                  \
      ".global " name "_begin\n" name       \
      "_begin:\n"                           \
      ".incbin \"" RETICLE_HOUSE_TEXTS file \
      "\"\n"                                \
      ".global " name "_end\n" name         \
      "_end:\n"                             \
      ".byte 0\n"                           \
      ".text\n")
RETICLE_INCLUDE_TEXT("reticle_house_calibration", "/calibration.txt");
RETICLE_INCLUDE_TEXT("reticle_house_held_out", "/held_out.txt");
extern "C" {
__attribute__((visibility("hidden"))) extern const char reticle_house_calibration_begin[];
__attribute__((visibility("hidden"))) extern const char reticle_house_calibration_end[];
__attribute__((visibility("hidden"))) extern const char reticle_house_held_out_begin[];
__attribute__((visibility("hidden"))) extern const char reticle_house_held_out_end[];
}
#endif

namespace reticle::server::cli {
namespace {

using backends::hardwired::TokenText;

constexpr std::string_view kGeneralCalibration =
    R"text(The harbour town of Eldvik lies where two rivers meet the sea. In the mornings fog hangs over the quays, and the first ferries leave before anyone can see the other shore. People who have lived there for a long time say that they can tell the hour from the sound of the bells, although the bells have not been on time since the winter of 1962. The market opens at seven. Fish comes first, then bread, then everything else; by noon most stalls are empty and the square belongs to children and gulls.
A visitor once asked the harbour master why the lighthouse had been painted green. He thought about it for a while. "Because the red paint was sold out," he said, "and because nobody looks at the colour when the light is on." It was a fair answer. Much of what we call tradition began as a shortage.
===
How a compiler works, in short. Source text is split into tokens: names, numbers, operators. A parser arranges them in a tree that follows the grammar of the language. Then the tree is checked: are all names declared, do the types fit? After that it is lowered, step by step, into simpler forms, and each form is a chance to improve the program. Constants are folded, dead code is removed, loops are turned around so that memory is read in order. At the end registers are assigned and instructions are written. None of these steps is hard to understand on its own; what is hard is that there are many, and that a mistake in one shows up in another.

for (int i = 0; i < n; ++i) {
  if (values[i] < smallest) {
    smallest = values[i];
    index = i;
  }
}
return index;
===
Question: A train leaves at 9:40 and arrives at 13:05. How long does the journey take?
Answer: From 9:40 to 13:40 are four hours; 13:05 is 35 minutes earlier. So the journey takes 3 hours and 25 minutes.

Question: What is the difference between weather and climate?
Answer: Weather is the state of the air at one place and time. Climate is what the weather is like on average over many years.

Question: Write one sentence with the word "although".
Answer: Although it was raining, they walked home along the river.
===
| city | population | founded | altitude |
|---|---|---|---|
| Eldvik | 48,200 | 1183 | 6 m |
| Torsen | 12,950 | 1401 | 310 m |
| Marrow Bay | 231,000 | 1822 | 2 m |

Dear Ms Okafor, thank you for your letter of 3 March. We have checked the meter that you mentioned and found that it counts correctly. The higher reading comes from the frost in January, when the heating of the workshop ran day and night. We suggest to lower the temperature there to 12 degrees at weekends; with last year's figures that would have saved about 640 kWh. If you have further questions, please call us between 8 and 16 o'clock. Kind regards, the service team.
===
Light takes about eight minutes from the Sun to the Earth. It is a strange thought that we never see the Sun as it is, only as it was. For stars the delay is years, for galaxies millions of years, and the sky at night is therefore less a picture than an archive. Astronomers have learnt to read it: the colour tells the temperature, dark lines in the spectrum tell the elements, and the shift of these lines tells how fast a star comes closer or goes away.
import json

def load(path):
    """Returns the records of a file, newest first."""
    with open(path, encoding="utf-8") as f:
        records = json.load(f)
    return sorted(records, key=lambda r: r["time"], reverse=True)

To repair a bicycle tyre, take off the wheel, lift the tyre over the rim with two levers and pull out the tube. Pump it up a little and hold it under water: bubbles show the hole. Dry it, roughen the rubber, spread a thin layer of glue, wait until it no longer shines, and press the patch on firmly. Before you put the tube back, feel along the inside of the tyre for the thorn or the piece of glass. Otherwise you will soon do all of this again.
)text";

constexpr std::string_view kGeneralHeldOut =
    R"text(When the library moved to its new building, the books were carried by hand. Four hundred people stood in a line through the old town, and every volume passed through every pair of hands. It took eleven hours. A lorry would have needed two, but nobody would have remembered it. The youngest in the line was five and dropped an atlas; the oldest was ninety-one and corrected the order of a shelf while it went by.
The new reading room has tall windows to the north, so that the sun never falls on the pages. In winter the lamps are lit at three. There is a rule that no one may speak, and another, not written anywhere, that one may laugh.
===
A hash table keeps pairs of keys and values. A function turns each key into a number, and the number, taken modulo the size of the table, says where to look first. Two keys may want the same place; then the second is put elsewhere, by a fixed rule, and searching follows the same rule. As long as a good part of the table is empty, a search takes a step or two. When it fills up, everything is moved to a larger one.

int Count(const std::vector<int>& numbers, int wanted) {
  int count = 0;
  for (const int number : numbers) {
    if (number == wanted) ++count;
  }
  return count;
}
===
Question: Why do we have leap years?
Answer: The Earth needs about 365 and a quarter days to go around the Sun. An extra day every four years keeps the calendar in step with the seasons.

Question: A shirt costs 40 euros and is reduced by 15 percent. What does it cost now?
Answer: 15 percent of 40 euros are 6 euros, so it costs 34 euros.

Bread needs flour, water, salt, yeast and time. Mix the first four, and the last does most of the work: overnight in a cool place the dough rises slowly and takes on taste. In the morning shape it with wet hands, let it rest for half an hour, cut the top with a sharp knife and bake it in a very hot oven, with a cup of water on the floor of the oven for steam. It is done when it sounds hollow. Wait before you cut it, if you can.
)text";

// The parts of `text` between lines that hold only `mark`.
std::vector<std::string_view> SplitAtLines(std::string_view text, std::string_view mark) {
  std::vector<std::string_view> parts;
  size_t begin = 0, line = 0;
  while (line < text.size()) {
    const size_t end = std::min(text.find('\n', line), text.size());
    if (text.substr(line, end - line) == mark) {
      parts.push_back(text.substr(begin, line - begin));
      begin = end + 1;
    }
    line = end + 1;
  }
  parts.push_back(text.substr(std::min(begin, text.size())));
  for (std::string_view& part : parts) {
    if (part.ends_with('\n')) part.remove_suffix(1);
  }
  return parts;
}

TokenText TokenizeDocument(std::string_view document, const tokenizer::Tokenizer& tokenizer) {
  TokenText text;
  const std::vector<std::string_view> parts = SplitAtLines(document, ">>>");
  const std::vector<TokenId> special = tokenizer.Encode("");
  for (size_t i = 0; i < parts.size(); ++i) {
    std::vector<TokenId> tokens;
    tokenizer.Encode(parts[i], {.add_special = false, .parse_special = true}, tokens);
    const bool begins = i == 0 && !special.empty() && tokenizer.bos() == special.front() &&
                        (tokens.empty() || tokens.front() != special.front());
    if (begins) tokens.insert(tokens.begin(), special.front());
    for (const TokenId token : tokens) {
      text.tokens.push_back(token);
      text.counts.push_back(parts.size() == 1 || i % 2 == 1);
    }
  }
  return text;
}

}  // namespace

std::string_view GeneralCalibrationText() { return kGeneralCalibration; }
std::string_view GeneralHeldOutText() { return kGeneralHeldOut; }

std::string_view HouseCalibrationText() {
#ifdef RETICLE_HOUSE_TEXTS
  return {reticle_house_calibration_begin, reticle_house_calibration_end};
#else
  return {};
#endif
}

std::string_view HouseHeldOutText() {
#ifdef RETICLE_HOUSE_TEXTS
  return {reticle_house_held_out_begin, reticle_house_held_out_end};
#else
  return {};
#endif
}

std::vector<TokenText> TokenizeTexts(std::string_view text, const tokenizer::Tokenizer& tokenizer,
                                     size_t max_tokens) {
  std::vector<TokenText> texts;
  for (const std::string_view document : SplitAtLines(text, "===")) {
    const TokenText whole = TokenizeDocument(document, tokenizer);
    for (size_t first = 0; first + 1 < whole.tokens.size(); first += max_tokens) {
      const size_t end = std::min(first + max_tokens, whole.tokens.size());
      const auto at = [](const auto& all, size_t i) {
        return all.begin() + static_cast<ptrdiff_t>(i);
      };
      texts.push_back({{at(whole.tokens, first), at(whole.tokens, end)},
                       {at(whole.counts, first), at(whole.counts, end)}});
    }
  }
  return texts;
}

}  // namespace reticle::server::cli
