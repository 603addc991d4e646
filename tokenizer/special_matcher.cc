#include "tokenizer/special_matcher.h"

#include <algorithm>

namespace reticle::tokenizer {

SpecialMatcher::SpecialMatcher(const std::vector<std::pair<std::string_view, TokenId>>& patterns) {
  nodes_.emplace_back();
  struct Edge {
    uint32_t parent;
    uint8_t byte;
    uint32_t child;
    uint32_t depth;
  };
  std::vector<Edge> edges;
  for (const auto& [text, token] : patterns) {
    uint32_t node = 0;
    uint32_t depth = 0;
    for (auto it = text.rbegin(); it != text.rend(); ++it) {
      const auto byte = static_cast<uint8_t>(*it);
      ++depth;
      uint32_t child = Child(node, byte);
      if (child == 0) {
        child = static_cast<uint32_t>(nodes_.size());
        nodes_.emplace_back();
        if (node == 0) {
          root_children_[byte] = child;
        } else {
          children_[uint64_t{node} << 8 | byte] = child;
        }
        edges.push_back({node, byte, child, depth});
      }
      node = child;
    }
    if (nodes_[node].size == 0) {
      nodes_[node].size = static_cast<uint32_t>(text.size());
      nodes_[node].token = token;
    }
  }
  std::stable_sort(edges.begin(), edges.end(),
                   [](const Edge& a, const Edge& b) { return a.depth < b.depth; });
  for (const Edge& edge : edges) {
    Node& node = nodes_[edge.child];
    if (edge.parent != 0) {
      uint32_t suffix = nodes_[edge.parent].failure;
      while (suffix != 0 && Child(suffix, edge.byte) == 0) suffix = nodes_[suffix].failure;
      node.failure = Child(suffix, edge.byte);
    }
    if (node.size == 0) {
      node.size = nodes_[node.failure].size;
      node.token = nodes_[node.failure].token;
    }
  }
}

uint32_t SpecialMatcher::Child(uint32_t node, uint8_t byte) const {
  if (node == 0) return root_children_[byte];
  const auto it = children_.find(uint64_t{node} << 8 | byte);
  return it == children_.end() ? 0 : it->second;
}

void SpecialMatcher::Find(std::string_view text, std::vector<Match>& matches) const {
  matches.clear();
  if (empty()) return;
  uint32_t node = 0;
  for (size_t i = text.size(); i-- > 0;) {
    const auto byte = static_cast<uint8_t>(text[i]);
    uint32_t child = Child(node, byte);
    while (child == 0 && node != 0) {
      node = nodes_[node].failure;
      child = Child(node, byte);
    }
    node = child;
    if (nodes_[node].size != 0) matches.push_back({i, nodes_[node].size, nodes_[node].token});
  }
  std::reverse(matches.begin(), matches.end());
  size_t kept = 0;
  size_t position = 0;
  for (const Match& match : matches) {
    if (match.begin < position) continue;
    position = match.begin + match.size;
    matches[kept++] = match;
  }
  matches.resize(kept);
}

}  // namespace reticle::tokenizer
