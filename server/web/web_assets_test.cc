#include "server/web/web_assets.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace reticle::server::web {
namespace {

const WebAsset& Page() { return *FindWebAsset("/"); }

std::string Tag(const WebReply& reply) {
  const size_t begin = reply.headers.find("ETag: ") + 6;
  return reply.headers.substr(begin, reply.headers.find('\r', begin) - begin);
}

TEST(WebAssetsTest, EachPathOnceWithTypeAndContents) {
  std::set<std::string_view> paths;
  std::set<std::string_view> tags;
  for (const WebAsset& asset : WebAssets()) {
    EXPECT_TRUE(paths.insert(asset.path).second) << asset.path;
    EXPECT_TRUE(tags.insert(asset.tag).second) << asset.path;
    EXPECT_FALSE(asset.body.empty()) << asset.path;
    EXPECT_FALSE(asset.content_type.empty()) << asset.path;
    EXPECT_LT(asset.gzip.size(), asset.body.size()) << asset.path;
    EXPECT_EQ(FindWebAsset(asset.path), &asset);
  }
  for (const char* path : {"/", "/docs", "/openapi.json", "/favicon.svg", "/assets/chat.js"}) {
    EXPECT_TRUE(paths.contains(path)) << path;
  }
}

TEST(WebAssetsTest, NothingElseIsFound) {
  for (const char* path : {"", "//", "/assets", "/assets/", "/assets/../main.cc", "/index.html",
                           "/assets/chat.js/", "/ASSETS/chat.js"}) {
    EXPECT_EQ(FindWebAsset(path), nullptr) << path;
  }
}

TEST(WebAssetsTest, GzipForThoseWhoTakeIt) {
  ASSERT_FALSE(Page().gzip.empty());
  for (const char* header : {"gzip", "GZIP", "br, gzip;q=0.5", "deflate,gzip", "*", "gzip;q=1.0",
                             " gzip ; q=0.001", "identity;q=0, *"}) {
    const WebReply reply = AnswerWebRequest(Page(), "", header);
    EXPECT_EQ(reply.body, Page().gzip) << header;
    EXPECT_NE(reply.headers.find("Content-Encoding: gzip\r\n"), std::string::npos) << header;
  }
  for (const char* header : {"", "br", "gzip;q=0", "gzip;q=0.0, *", "*;q=0", "xgzip", ",,;,"}) {
    const WebReply reply = AnswerWebRequest(Page(), "", header);
    EXPECT_EQ(reply.body, Page().body) << header;
    EXPECT_EQ(reply.headers.find("Content-Encoding"), std::string::npos) << header;
  }
}

TEST(WebAssetsTest, AKnownTagIsNotSentAgain) {
  const std::string plain = Tag(AnswerWebRequest(Page(), "", ""));
  const std::string packed = Tag(AnswerWebRequest(Page(), "", "gzip"));
  EXPECT_NE(plain, packed);
  for (const std::string& header : {plain, "W/" + plain, "\"other\", " + plain, std::string("*")}) {
    EXPECT_EQ(AnswerWebRequest(Page(), header, "").status, 304) << header;
  }
  EXPECT_EQ(AnswerWebRequest(Page(), packed, "gzip").status, 304);
  for (const std::string& header : {packed, std::string("\"\""), plain.substr(1), plain + "x"}) {
    EXPECT_EQ(AnswerWebRequest(Page(), header, "").status, 200) << header;
  }
}

TEST(WebAssetsTest, EveryReplyCarriesThePolicy) {
  for (const WebAsset& asset : WebAssets()) {
    const std::string headers = AnswerWebRequest(asset, "", "gzip").headers;
    EXPECT_NE(headers.find("Content-Security-Policy: default-src 'none'; script-src 'self'; "
                           "style-src 'self'; connect-src 'self'; img-src 'self' data:; "
                           "base-uri 'none'; form-action 'self'; frame-ancestors 'none'\r\n"),
              std::string::npos);
    EXPECT_NE(headers.find("X-Content-Type-Options: nosniff\r\n"), std::string::npos);
    EXPECT_NE(headers.find("Referrer-Policy: no-referrer\r\n"), std::string::npos);
  }
}

}  // namespace
}  // namespace reticle::server::web
