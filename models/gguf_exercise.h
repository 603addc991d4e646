// Calls everything that a parsed file offers, for fuzzing: whatever Parse accepted must be safe to
// read.
#ifndef RETICLE_MODELS_GGUF_EXERCISE_H_
#define RETICLE_MODELS_GGUF_EXERCISE_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace reticle::models {

// Parses `bytes` (which must be aligned as GgufFile::Parse asks) and, when that succeeds, reads
// every value through every accessor, every byte of every tensor, decodes the first block of each
// and reads the Llama configuration and weights. Returns whether the file was accepted; aborts when
// a promise of the interface is broken.
bool ExerciseGguf(std::span<const std::byte> bytes);

// Valid files to start from: a Llama of the least size, so that most bytes are header, and one with
// metadata of every kind.
std::vector<std::byte> SampleTinyLlama();
std::vector<std::byte> SampleOfEveryValueType();

}  // namespace reticle::models

#endif  // RETICLE_MODELS_GGUF_EXERCISE_H_
