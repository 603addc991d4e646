#include "server/cli/chat.h"

#include <signal.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <utility>

#include "base/status.h"
#include "server/cli/chat_client.h"
#include "server/cli/chat_session.h"

namespace reticle::server::cli {
namespace {

using SteadyClock = std::chrono::steady_clock;

// Set by Ctrl-C; an answer that is being written ends, a line that is being typed is dropped.
std::atomic<bool> interrupted{false};
static_assert(std::atomic<bool>::is_always_lock_free);

void OnInterrupt(int) { interrupted.store(true); }

void TakeOverInterrupt() {
  struct sigaction action {};
  action.sa_handler = OnInterrupt;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);  // without SA_RESTART: a read ends with EINTR
}

enum class Input { kLine, kEnd, kInterrupted };

class LineReader {
 public:
  Input Next(std::string& line) {
    for (;;) {
      if (const size_t end = pending_.find('\n'); end != std::string::npos) {
        line = pending_.substr(0, end);
        pending_.erase(0, end + 1);
        return Input::kLine;
      }
      char bytes[4096];
      const ssize_t n = read(STDIN_FILENO, bytes, sizeof(bytes));
      if (n > 0) {
        pending_.append(bytes, static_cast<size_t>(n));
        continue;
      }
      if (n < 0 && errno == EINTR) {
        if (!interrupted.load()) continue;
        pending_.clear();
        return Input::kInterrupted;
      }
      line = std::move(pending_);
      pending_.clear();
      return line.empty() ? Input::kEnd : Input::kLine;
    }
  }

 private:
  std::string pending_;
};

std::string ReadAll() {
  std::string text;
  char bytes[65536];
  for (;;) {
    const ssize_t n = read(STDIN_FILENO, bytes, sizeof(bytes));
    if (n > 0) text.append(bytes, static_cast<size_t>(n));
    if (n == 0 || (n < 0 && (errno != EINTR || interrupted.load()))) return text;
  }
}

double Milliseconds(SteadyClock::duration duration) {
  return std::chrono::duration<double, std::milli>(duration).count();
}

// "16960" as "16,960".
std::string Grouped(double value) {
  std::string text = absl::StrFormat("%.0f", value);
  for (size_t at = text.size(); at > 3; at -= 3) text.insert(at - 3, ",");
  return text;
}

absl::StatusOr<std::string> ReadKey(const std::string& path) {
  if (path.empty()) {
    const char* key = std::getenv("OPENAI_API_KEY");
    return std::string(key != nullptr ? key : "");
  }
  std::ifstream file(path);
  std::string key;
  if (!file || !std::getline(file, key)) {
    return InvalidArgumentError("the key file %s cannot be read", path);
  }
  while (!key.empty() && (key.back() == '\r' || key.back() == ' ')) key.pop_back();
  if (std::any_of(key.begin(), key.end(), [](char c) { return c <= 0x20 || c == 0x7f; })) {
    return InvalidArgumentError("the first line of the key file %s is no key", path);
  }
  return key;
}

class Terminal {
 public:
  Terminal(ChatSession session, ChatClient client)
      : session_(std::move(session)),
        client_(std::move(client)),
        asks_(isatty(STDIN_FILENO) == 1),
        shows_(isatty(STDOUT_FILENO) == 1) {}

  int Run() {
    TakeOverInterrupt();
    if (session_.model.empty()) {
      const absl::StatusOr<std::vector<std::string>> models = Models();
      if (!models.ok()) return Fail(models.status());
      if (!models->empty()) session_.model = models->front();
    }
    return asks_ ? Talk() : AskOnce();
  }

 private:
  int Fail(const absl::Status& status) {
    std::fprintf(stderr, "reticle chat: %s\n", Message(status).c_str());
    return status.code() == absl::StatusCode::kCancelled ? 130 : 1;
  }

  // Errors of the network name the server, and what to do.
  std::string Message(const absl::Status& status) const {
    const std::string text = PlainText(std::string(status.message()));
    if (status.code() != absl::StatusCode::kUnavailable) return text;
    return absl::StrFormat("no answer from %s: %s (is \"reticle serve\" running there?)",
                           client_.Address(), text);
  }

  static absl::Status ReplyError(const ChatReply& reply) {
    std::string message = ErrorMessageOf(reply.body);
    if (message.empty()) message = absl::StrFormat("the server answered %d", reply.status);
    if (reply.status == 401) message.append("; name a file with your key by --api-key-file");
    if (!reply.retry_after.empty()) {
      message.append("; try again in ").append(reply.retry_after).append(" s");
    }
    return FailedPreconditionError("%s", message);
  }

  absl::StatusOr<std::vector<std::string>> Models() const {
    ASSIGN_OR_RETURN(const ChatReply reply, client_.Send("/v1/models", "", nullptr, interrupted));
    if (reply.status != 200) return ReplyError(reply);
    return ParseModelList(reply.body);
  }

  // Prints the answer as it comes.
  absl::Status Ask(const std::string& question, std::string& answer) {
    const SteadyClock::time_point begin = SteadyClock::now();
    SteadyClock::time_point first{};
    SteadyClock::time_point last{};
    int64_t pieces = 0;
    ChatEvent end;
    SseReader reader;
    const auto on_event = [&](std::string_view data) -> absl::Status {
      ASSIGN_OR_RETURN(ChatEvent event, ParseChatEvent(data));
      if (!event.text.empty()) {
        last = SteadyClock::now();
        if (pieces++ == 0) first = last;
        answer.append(event.text);
        Print(event.text);
      }
      if (!event.finish.empty()) end.finish = std::move(event.finish);
      if (event.completion_tokens.has_value()) end.completion_tokens = event.completion_tokens;
      if (event.completion_ms.has_value()) end.completion_ms = event.completion_ms;
      end.done = end.done || event.done;
      return absl::OkStatus();
    };
    const auto sink = [&](std::string_view bytes) {
      absl::Status status = reader.Push(bytes, on_event);
      std::fflush(stdout);
      return status;
    };
    ASSIGN_OR_RETURN(
        const ChatReply reply,
        client_.Send("/v1/chat/completions", session_.RequestBody(question), sink, interrupted));
    if (reply.status != 200) return ReplyError(reply);
    if (!end.done) return UnavailableError("the answer broke off");
    if (asks_ && session_.show_stats && pieces > 0) {
      EndLine(answer);
      const int64_t tokens = end.completion_tokens.value_or(pieces);
      const double ms = end.completion_ms.value_or(Milliseconds(last - first));
      std::string stats;
      if (tokens > 1 && ms > 0) {
        stats = Grouped(static_cast<double>(tokens - 1) / ms * 1000) + " tok/s, ";
      }
      stats.append(absl::StrFormat("first token after %.1f ms, %d tokens%s",
                                   Milliseconds(first - begin), tokens,
                                   end.finish == "length" ? ", cut at its limit" : ""));
      Note(stats);
    }
    return absl::OkStatus();
  }

  void Print(const std::string& text) const {
    const std::string plain = shows_ ? PlainText(text) : text;
    std::fwrite(plain.data(), 1, plain.size(), stdout);
  }

  static void EndLine(const std::string& answer) {
    if (!answer.empty() && answer.back() != '\n') std::fputc('\n', stdout);
    std::fflush(stdout);
  }

  // Something that is not the answer.
  void Note(const std::string& text) const {
    const bool dim = isatty(STDERR_FILENO) == 1 && std::getenv("NO_COLOR") == nullptr;
    std::fprintf(stderr, dim ? "\033[2m%s\033[0m\n" : "%s\n", text.c_str());
  }

  int AskOnce() {
    std::string question = ReadAll();
    while (!question.empty() && (question.back() == '\n' || question.back() == '\r')) {
      question.pop_back();
    }
    if (question.empty()) return Fail(InvalidArgumentError("the question is empty"));
    std::string answer;
    const absl::Status status = Ask(question, answer);
    EndLine(answer);
    return status.ok() ? 0 : Fail(status);
  }

  int Talk() {
    Note(absl::StrFormat("%s at %s; /help lists the commands",
                         session_.model.empty() ? "the server's model" : session_.model,
                         client_.Address()));
    LineReader reader;
    std::string question;
    for (;;) {
      std::fputs(question.empty() ? "> " : ". ", stderr);
      std::string line;
      interrupted.store(false);
      const Input input = reader.Next(line);
      if (input == Input::kInterrupted) {
        std::fputc('\n', stderr);
        question.clear();
        continue;
      }
      if (input == Input::kEnd) {
        std::fputc('\n', stderr);
        return 0;
      }
      if (line.ends_with('\\')) {
        line.back() = '\n';
        question.append(line);
        continue;
      }
      question.append(line);
      const std::string whole = std::exchange(question, {});
      if (whole.find_first_not_of(" \t\r\n") == std::string::npos) continue;
      if (whole.front() == '/') {
        if (!Obey(whole)) return 0;
        continue;
      }
      std::string answer;
      const absl::Status status = Ask(whole, answer);
      EndLine(session_.show_stats && status.ok() ? std::string() : answer);
      if (status.ok()) {
        session_.Remember(whole, std::move(answer));
      } else if (status.code() == absl::StatusCode::kCancelled) {
        Note("stopped");
        if (!answer.empty()) session_.Remember(whole, std::move(answer));
      } else {
        Note(Message(status));
      }
    }
  }

  // False when the conversation is to end.
  bool Obey(const std::string& line) {
    const absl::StatusOr<ChatCommand> command = ParseChatCommand(line);
    if (!command.ok()) {
      Note(Message(command.status()));
      return true;
    }
    switch (command->kind) {
      case ChatCommand::Kind::kExit:
        return false;
      case ChatCommand::Kind::kHelp:
        Note(std::string(ChatHelp()));
        break;
      case ChatCommand::Kind::kReset:
        session_.Reset();
        Note("the conversation begins anew");
        break;
      case ChatCommand::Kind::kSystem:
        session_.system = command->argument;
        Note(session_.system.empty() ? "no system prompt" : "the system prompt is set");
        break;
      case ChatCommand::Kind::kModel:
        if (!command->argument.empty()) session_.model = command->argument;
        Note(session_.model.empty() ? "the server's model" : session_.model);
        break;
      case ChatCommand::Kind::kModels: {
        const absl::StatusOr<std::vector<std::string>> models = Models();
        if (!models.ok()) {
          Note(Message(models.status()));
        } else {
          for (const std::string& id : *models) Note(PlainText(id));
        }
        break;
      }
      case ChatCommand::Kind::kSet:
        if (!command->argument.empty()) {
          if (const absl::Status status = session_.Set(command->argument); !status.ok()) {
            Note(Message(status));
            break;
          }
        }
        Note(session_.DescribeSettings());
        break;
      case ChatCommand::Kind::kStats:
        session_.show_stats = command->argument == "on";
        break;
    }
    return true;
  }

  ChatSession session_;
  const ChatClient client_;
  const bool asks_;   // the input is a terminal
  const bool shows_;  // the output is one
};

}  // namespace

std::optional<CommandLineExit> ParseChatArguments(const std::vector<std::string>& arguments,
                                                  ChatOptions& options) {
  CLI::App app(
      "Talk with a model in the terminal. When the input is no terminal, all of it is one "
      "question.",
      "reticle chat");
  app.add_option("--url", options.url, "The server; any of OpenAI's API will do")
      ->capture_default_str();
  app.add_option("--model", options.model,
                 "Model, or device group of one; default: the first listed");
  app.add_option("--system", options.system, "Instructions for the model");
  app.add_option("--api-key-file", options.api_key_file,
                 "File whose first line is the key; default: the variable OPENAI_API_KEY, if set");
  app.add_option("--ca-file", options.ca_file,
                 "File of certificates (PEM) that an https server's is checked against, instead of "
                 "the system's");
  app.add_option("--set", options.settings,
                 "NAME=VALUE of temperature, top_p, top_k, max_tokens or seed; may be repeated");
  if (auto exit = ParseArguments(app, arguments); exit.has_value()) return exit;
  ChatSession probe;
  for (const std::string& setting : options.settings) {
    if (const absl::Status status = probe.Set(setting); !status.ok()) return Mistake(app, status);
  }
  if (const auto url = ParseChatUrl(options.url); !url.ok()) {
    return Mistake(app, url.status());
  }
  return std::nullopt;
}

int Chat(const ChatOptions& options) {
  const absl::StatusOr<ChatUrl> url = ParseChatUrl(options.url);
  absl::StatusOr<std::string> key = ReadKey(options.api_key_file);
  for (const absl::Status& status : {url.status(), key.status()}) {
    if (status.ok()) continue;
    std::fprintf(stderr, "reticle chat: %s\n", std::string(status.message()).c_str());
    return 2;
  }
  ChatSession session;
  session.model = options.model;
  session.system = options.system;
  for (const std::string& setting : options.settings) session.Set(setting).IgnoreError();
  return Terminal(std::move(session), ChatClient(*url, *std::move(key), options.ca_file)).Run();
}

}  // namespace reticle::server::cli
