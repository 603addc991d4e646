// `reticle chat`: a conversation in the terminal with any server of OpenAI's API.
#ifndef RETICLE_SERVER_CLI_CHAT_H_
#define RETICLE_SERVER_CLI_CHAT_H_

#include <optional>
#include <string>
#include <vector>

#include "server/cli/command_line.h"

namespace reticle::server::cli {

struct ChatOptions {
  std::string url = "http://127.0.0.1:8080";
  std::string model;                  // empty: the first that the server lists
  std::string system;                 // empty: none
  std::string api_key_file;           // empty: the environment's OPENAI_API_KEY, or no key
  std::string ca_file;                // certificates to trust over https; empty: the system's
  std::vector<std::string> settings;  // "temperature=0.5"
};

// `arguments`: those behind "chat". On success `options` is filled and nullopt comes back.
std::optional<CommandLineExit> ParseChatArguments(const std::vector<std::string>& arguments,
                                                  ChatOptions& options);

// Talks until the end of the input; returns the exit status. When the input is no terminal, all of
// it is one question, and nothing but the answer is printed. Takes over SIGINT.
int Chat(const ChatOptions& options);

}  // namespace reticle::server::cli

#endif  // RETICLE_SERVER_CLI_CHAT_H_
