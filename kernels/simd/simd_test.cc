#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu_isa.h"
#include "kernels/simd/simd_probe_kernel.h"

namespace troupe {
namespace {

// Distance in units of the last place of `want`, rounded to float.
double Ulps(float got, double want) {
  const float rounded = static_cast<float>(want);
  if (got == rounded) return 0;
  const float next = std::nextafter(std::abs(rounded), std::numeric_limits<float>::infinity());
  return std::abs(got - want) / (static_cast<double>(next) - std::abs(rounded));
}

std::vector<CpuIsa> Isas() {
  std::vector<CpuIsa> isas;
  for (int i = 0; i <= static_cast<int>(*DetectCpuIsa()); ++i) isas.push_back(CpuIsa(i));
  return isas;
}

struct Probed {
  explicit Probed(const std::vector<float>& in, CpuIsa isa)
      : exp(in.size()), sigmoid(in.size()), silu(in.size()), narrow(in.size()), widened(in.size()) {
    kProbeElementwise[isa](SimdProbe{static_cast<int64_t>(in.size()), in.data(), exp.data(),
                                     sigmoid.data(), silu.data(), narrow.data(), widened.data()});
  }

  std::vector<float> exp;
  std::vector<float> sigmoid;
  std::vector<float> silu;
  std::vector<Bf16> narrow;
  std::vector<float> widened;
};

class SimdTest : public testing::TestWithParam<CpuIsa> {};

TEST_P(SimdTest, ExpAndItsFriendsAreAccurate) {
  std::vector<float> in;
  for (float x = -110; x < 100; x += 0.00137f) in.push_back(x);
  const Probed probed(in, GetParam());
  double worst_exp = 0;
  double worst_sigmoid = 0;
  double worst_silu = 0;
  for (size_t i = 0; i < in.size(); ++i) {
    const double x = in[i];
    const double sigmoid = 1 / (1 + std::exp(-x));
    if (std::exp(x) < std::numeric_limits<float>::max()) {
      worst_exp = std::max(worst_exp, Ulps(probed.exp[i], std::exp(x)));
    } else {
      EXPECT_EQ(probed.exp[i], std::numeric_limits<float>::infinity()) << x;
    }
    if (x < -87) continue;  // e^-x overflows there: the result is zero, its last place is not
    worst_sigmoid = std::max(worst_sigmoid, Ulps(probed.sigmoid[i], sigmoid));
    worst_silu = std::max(worst_silu, Ulps(probed.silu[i], x * sigmoid));
  }
  EXPECT_LE(worst_exp, 2);
  EXPECT_LE(worst_sigmoid, 4);
  EXPECT_LE(worst_silu, 4);
}

TEST_P(SimdTest, ExtremesOfExp) {
  const float infinity = std::numeric_limits<float>::infinity();
  const std::vector<float> in = {0, -0.0f, infinity, -infinity, std::nanf(""), 1e30f, -1e30f};
  const Probed probed(in, GetParam());
  EXPECT_EQ(probed.exp[0], 1);
  EXPECT_EQ(probed.exp[1], 1);
  EXPECT_EQ(probed.exp[2], infinity);
  EXPECT_EQ(probed.exp[3], 0);
  EXPECT_TRUE(std::isnan(probed.exp[4]));
  EXPECT_EQ(probed.exp[5], infinity);
  EXPECT_EQ(probed.exp[6], 0);
  EXPECT_EQ(probed.sigmoid[2], 1);
  EXPECT_EQ(probed.sigmoid[3], 0);
}

TEST_P(SimdTest, Bf16RoundsAsTheScalarFunctionDoes) {
  std::vector<float> in = {0.0f,
                           -0.0f,
                           std::numeric_limits<float>::infinity(),
                           std::nanf(""),
                           std::numeric_limits<float>::max(),
                           1e-40f};
  std::mt19937 engine(1);
  for (int i = 0; i < 5000; ++i) {
    // Every second one lies half-way between two bf16 values.
    const uint32_t bits = i % 2 == 0 ? engine() : (engine() & 0xffff0000u) | 0x8000u;
    float value;
    std::memcpy(&value, &bits, sizeof(value));
    in.push_back(value);
  }
  const Probed probed(in, GetParam());
  for (size_t i = 0; i < in.size(); ++i) {
    const Bf16 want = ToBf16(in[i]);
    EXPECT_EQ(probed.narrow[i].bits, want.bits) << in[i];
    const float widened = ToF32(want);
    EXPECT_EQ(std::memcmp(&probed.widened[i], &widened, sizeof(widened)), 0) << in[i];
  }
}

TEST_P(SimdTest, Reductions) {
  constexpr int kCount = 96;
  std::vector<float> in(kCount);
  std::vector<Bf16> a(kCount);
  std::vector<Bf16> b(kCount);
  float sum = 0;
  float dot = 0;
  for (int i = 0; i < kCount; ++i) {
    in[i] = static_cast<float>((i * 37) % 101 - 50);  // all sums are exact
    a[i] = ToBf16(static_cast<float>(i - 40));
    b[i] = ToBf16(static_cast<float>((i * 7) % 31));
    sum += in[i];
    dot += ToF32(a[i]) * ToF32(b[i]);
  }
  float sum_max_dot[3];
  kProbeReductions[GetParam()](in.data(), a.data(), b.data(), kCount, sum_max_dot);
  EXPECT_EQ(sum_max_dot[0], sum);
  EXPECT_EQ(sum_max_dot[1], *std::max_element(in.begin(), in.end()));
  EXPECT_EQ(sum_max_dot[2], dot);
}

INSTANTIATE_TEST_SUITE_P(Isas, SimdTest, testing::ValuesIn(Isas()),
                         [](const auto& info) { return CpuIsaName(info.param); });

}  // namespace
}  // namespace troupe
