// Python's spelling of numbers and strings.
#ifndef RETICLE_TOKENIZER_JINJA_REPR_H_
#define RETICLE_TOKENIZER_JINJA_REPR_H_

#include <string>
#include <string_view>

namespace reticle::tokenizer::jinja {

// repr(float): the shortest digits that read back as the same number.
std::string FloatRepr(double value);
// repr(str): quoted, with escapes.
std::string StringRepr(std::string_view text);

}  // namespace reticle::tokenizer::jinja

#endif  // RETICLE_TOKENIZER_JINJA_REPR_H_
