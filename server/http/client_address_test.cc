#include "server/http/client_address.h"

#include <random>

#include "gtest/gtest.h"

namespace reticle::server::http {
namespace {

ProxyTrust Trust(std::vector<std::string> networks, std::string_view header = "x-forwarded-for") {
  return *ProxyTrust::Create(networks, header);
}

TEST(ProxyTrust, ByDefaultNobodyIsBelieved) {
  EXPECT_EQ(ProxyTrust().ClientOf("192.0.2.1", "198.51.100.7"), "192.0.2.1");
  EXPECT_EQ(Trust({"10.0.0.0/8"}).ClientOf("192.0.2.1", "198.51.100.7"), "192.0.2.1");
}

TEST(ProxyTrust, ReadsFromTheEndAndStopsAtTheFirstThatIsNotTrusted) {
  const ProxyTrust trust = Trust({"10.0.0.0/8", "::1"});
  EXPECT_EQ(trust.ClientOf("10.1.2.3", "198.51.100.7"), "198.51.100.7");
  EXPECT_EQ(trust.ClientOf("::ffff:10.1.2.3", "198.51.100.7"), "198.51.100.7");
  // What the client itself wrote stands in front.
  EXPECT_EQ(trust.ClientOf("10.1.2.3", "203.0.113.9, 198.51.100.7"), "198.51.100.7");
  EXPECT_EQ(trust.ClientOf("10.1.2.3", "203.0.113.9, 198.51.100.7, 10.9.9.9"), "198.51.100.7");
  EXPECT_EQ(trust.ClientOf("::1", "2001:db8::5,10.0.0.1 , \t10.0.0.2"), "2001:db8::5");
  // A chain of proxies alone, and none.
  EXPECT_EQ(trust.ClientOf("10.1.2.3", "10.0.0.1, 10.0.0.2"), "10.0.0.1");
  EXPECT_EQ(trust.ClientOf("10.1.2.3", ""), "10.1.2.3");
}

TEST(ProxyTrust, PortsAndNonsense) {
  const ProxyTrust trust = Trust({"10.0.0.0/8"});
  EXPECT_EQ(trust.ClientOf("10.0.0.1", "198.51.100.7:8080"), "198.51.100.7");
  EXPECT_EQ(trust.ClientOf("10.0.0.1", "[2001:db8::5]:443"), "2001:db8::5");
  EXPECT_EQ(trust.ClientOf("10.0.0.1", "198.51.100.7, who knows"), "10.0.0.1");
  EXPECT_EQ(trust.ClientOf("10.0.0.1", "198.51.100.7, , 10.0.0.5"), "10.0.0.5");
  EXPECT_EQ(trust.ClientOf("10.0.0.1", "[2001:db8::5"), "10.0.0.1");
  EXPECT_EQ(trust.ClientOf("10.0.0.1", "for=198.51.100.7"), "10.0.0.1");
  EXPECT_EQ(trust.ClientOf("nothing", "198.51.100.7"), "nothing");
}

TEST(ProxyTrust, ForwardedOfRfc7239) {
  const ProxyTrust trust = Trust({"10.0.0.0/8"}, "forwarded");
  EXPECT_EQ(trust.ClientOf("10.0.0.1", "for=192.0.2.60;proto=http;by=203.0.113.43"), "192.0.2.60");
  EXPECT_EQ(trust.ClientOf("10.0.0.1", "For=\"[2001:db8:cafe::17]:4711\""), "2001:db8:cafe::17");
  EXPECT_EQ(trust.ClientOf("10.0.0.1", "for=192.0.2.43, for=198.51.100.17;by=\"a,b;for=1.1.1.1\""),
            "198.51.100.17");
  EXPECT_EQ(trust.ClientOf("10.0.0.1", "for=192.0.2.43, for=10.0.0.7"), "192.0.2.43");
  EXPECT_EQ(trust.ClientOf("10.0.0.1", "for=192.0.2.43, for=unknown"), "10.0.0.1");
  EXPECT_EQ(trust.ClientOf("10.0.0.1", "for=192.0.2.43, for=_hidden"), "10.0.0.1");
  EXPECT_EQ(trust.ClientOf("10.0.0.1", "192.0.2.43"), "10.0.0.1");
}

TEST(ProxyTrust, Networks) {
  const ProxyTrust trust = Trust({"192.0.2.128/25", "fd00::/8", "203.0.113.9", "2001:db8::/33"});
  EXPECT_TRUE(trust.Trusts("192.0.2.128"));
  EXPECT_FALSE(trust.Trusts("192.0.2.127"));
  EXPECT_TRUE(trust.Trusts("fdff::1"));
  EXPECT_FALSE(trust.Trusts("fe00::1"));
  EXPECT_TRUE(trust.Trusts("203.0.113.9"));
  EXPECT_FALSE(trust.Trusts("203.0.113.8"));
  EXPECT_TRUE(trust.Trusts("2001:db8:7fff::"));
  EXPECT_FALSE(trust.Trusts("2001:db8:8000::"));
  EXPECT_TRUE(Trust({"0.0.0.0/0"}).Trusts("8.8.8.8"));
  EXPECT_FALSE(Trust({"0.0.0.0/0"}).Trusts("2001:db8::1"));
  for (const char* wrong :
       {"", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/-1", "::/129", "10.0.0", "host", "10.0.0.0/8x"}) {
    EXPECT_FALSE(ProxyTrust::Create({wrong}, "forwarded").ok()) << wrong;
  }
  EXPECT_FALSE(ProxyTrust::Create({}, "x-real-ip").ok());
}

TEST(ProxyTrust, AnyBytesGiveTheConnectionOrAnAddressThatTheyHold) {
  std::mt19937 random(3);
  constexpr std::string_view kBytes = "0123456789abcdef.:[]\",;= for%\t\x7f\xff/";
  for (const char* header : {"x-forwarded-for", "forwarded"}) {
    const ProxyTrust trust = Trust({"0.0.0.0/0", "::/0"}, header);
    for (int i = 0; i < 20'000; ++i) {
      std::string values;
      for (size_t n = random() % 60; n > 0; --n) values += kBytes[random() % kBytes.size()];
      const std::string client = trust.ClientOf("10.0.0.1", values);
      EXPECT_TRUE(client == "10.0.0.1" || values.find(client) != std::string::npos);
    }
  }
}

}  // namespace
}  // namespace reticle::server::http
