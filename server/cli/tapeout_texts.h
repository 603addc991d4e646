// Texts for `reticle tapeout`: what a model is calibrated with and compared on.
#ifndef RETICLE_SERVER_CLI_TAPEOUT_TEXTS_H_
#define RETICLE_SERVER_CLI_TAPEOUT_TEXTS_H_

#include <cstddef>
#include <string_view>
#include <vector>

#include "backends/hardwired/rom/tapeout.h"
#include "tokenizer/tokenizer.h"

namespace reticle::server::cli {

// Written for this program, for models of any kind: prose, dialogue, code, tables.
std::string_view GeneralCalibrationText();
std::string_view GeneralHeldOutText();
// From the corpus of the house model, in its chat format; empty in a build without that model.
std::string_view HouseCalibrationText();
std::string_view HouseHeldOutText();

// Tokens of the documents of `text`, cut into pieces of at most `max_tokens`. Lines that hold only
// "===" part documents; lines that hold only ">>>" part, within one, what is context (first) from
// what counts, alternately; a document without any counts as a whole. Names of control tokens
// become these tokens. Documents of fewer than two tokens are left out.
std::vector<backends::hardwired::TokenText> TokenizeTexts(std::string_view text,
                                                          const tokenizer::Tokenizer& tokenizer,
                                                          size_t max_tokens);

}  // namespace reticle::server::cli

#endif  // RETICLE_SERVER_CLI_TAPEOUT_TEXTS_H_
