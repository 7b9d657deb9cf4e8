#include "config/program_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "config/yaml_settings.h"

namespace troupe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct Settings {
  std::string listen = "127.0.0.1:0";
  int64_t capacity_bytes = 1 << 20;
  int32_t max_batch_size = 16;
  double threshold = 0.5;
  bool reflection = true;
  std::string mode = "off";
  std::vector<std::string> workers;
  std::string token;
};

class ProgramConfigTest : public ::testing::Test {
 protected:
  ProgramConfigTest() : program_("demo", "A demonstration.") {
    program_.Add("listen", &settings_.listen, {.help = "Address."});
    program_.Add("capacity_bytes", &settings_.capacity_bytes,
                 {.help = "Room.", .unit = "bytes", .min = 1024});
    program_.Add("scheduler.max_batch_size", &settings_.max_batch_size,
                 {.help = "Sequences.", .min = 1, .max = 256});
    program_.Add("scheduler.threshold", &settings_.threshold,
                 {.help = "Gate.", .min = 0, .max = 1, .environment = "DEMO_THRESHOLD"});
    program_.Add("reflection", &settings_.reflection, {.help = "Serve reflection."});
    program_.Add("mode", &settings_.mode,
                 {.help = "Mode.", .choices = {"off", "adaptive"}, .short_flag = "-m"});
    program_.Add("workers", &settings_.workers, {.help = "Addresses of workers."});
    program_.Add("token", &settings_.token, {.help = "Token.", .secret = true});
    program_.AddExample("demo --listen :1");
  }

  absl::StatusOr<ProgramConfig::Action> Parse(std::vector<const char*> arguments) {
    arguments.insert(arguments.begin(), "demo");
    return program_.Parse(static_cast<int>(arguments.size()), arguments.data(), out_);
  }

  std::string ErrorOf(std::vector<const char*> arguments) {
    return std::string(Parse(std::move(arguments)).status().message());
  }

  std::string WriteFile(const std::string& text) {
    std::string path = ::testing::TempDir() + "program_config_test.yaml";
    std::ofstream(path) << text;
    return path;
  }

  Settings settings_;
  ProgramConfig program_;
  std::ostringstream out_;
};

TEST_F(ProgramConfigTest, DefaultsComeFromTheStruct) {
  EXPECT_EQ(Parse({}).value(), ProgramConfig::Action::kRun);
  EXPECT_EQ(settings_.capacity_bytes, 1 << 20);
  EXPECT_THAT(program_.EffectiveYaml(), HasSubstr("capacity_bytes: 1048576  # default"));
}

TEST_F(ProgramConfigTest, FlagsWinOverEnvironmentWinsOverFile) {
  const std::string path = WriteFile(
      "listen: file:1\nscheduler:\n  threshold: 0.1\n  max_batch_size: 8\nmode: adaptive\n");
  ASSERT_EQ(setenv("DEMO_THRESHOLD", "0.25", 1), 0);
  absl::StatusOr<ProgramConfig::Action> action =
      Parse({"--config", path.c_str(), "--scheduler.max-batch-size=4", "--no-reflection"});
  unsetenv("DEMO_THRESHOLD");
  ASSERT_EQ(action.status(), absl::OkStatus());
  EXPECT_EQ(settings_.listen, "file:1");
  EXPECT_EQ(settings_.threshold, 0.25);
  EXPECT_EQ(settings_.max_batch_size, 4);
  EXPECT_EQ(settings_.mode, "adaptive");
  EXPECT_FALSE(settings_.reflection);
  const std::string effective = program_.EffectiveYaml();
  EXPECT_THAT(effective, HasSubstr("listen: file:1  # file"));
  EXPECT_THAT(effective, HasSubstr("threshold: 0.25  # environment"));
  EXPECT_THAT(effective, HasSubstr("max_batch_size: 4  # flag"));
}

TEST_F(ProgramConfigTest, EffectiveConfigurationLoadsAgain) {
  ASSERT_TRUE(
      Parse({"--listen", "it's: \"odd\" # text", "--workers", "a:1", "--workers", "b:2"}).ok());
  const Settings before = settings_;
  const std::string effective = program_.EffectiveYaml();
  settings_ = Settings();
  ASSERT_EQ(program_.LoadYaml(effective, "again"), absl::OkStatus()) << effective;
  EXPECT_EQ(settings_.listen, before.listen);
  EXPECT_THAT(settings_.workers, ElementsAre("a:1", "b:2"));
}

TEST_F(ProgramConfigTest, BytesTakeSuffixes) {
  ASSERT_TRUE(Parse({"--capacity-bytes", "3GiB"}).ok());
  EXPECT_EQ(settings_.capacity_bytes, int64_t{3} << 30);
  EXPECT_THAT(ErrorOf({"--capacity-bytes", "9999999999TiB"}), HasSubstr("must be a whole number"));
  EXPECT_THAT(ErrorOf({"--capacity-bytes", "3GB"}), HasSubstr("must be a whole number"));
}

TEST_F(ProgramConfigTest, UnknownNamesAreRefusedWithTheNearest) {
  EXPECT_THAT(ErrorOf({"--capcity-bytes", "5000"}),
              HasSubstr("unknown flag \"--capcity-bytes\"; did you mean \"--capacity-bytes\"?"));
  EXPECT_THAT(ErrorOf({"--zzzzzz=1"}), HasSubstr("--help lists"));
  EXPECT_THAT(ErrorOf({"stray"}), HasSubstr("unexpected argument \"stray\""));
  const std::string path = WriteFile("listen: x\nscheduler:\n  max_batch: 8\n");
  EXPECT_THAT(ErrorOf({"--config", path.c_str()}),
              HasSubstr(path + ":3: unknown key \"scheduler.max_batch\"; did you mean "
                               "\"scheduler.max_batch_size\"?"));
}

TEST_F(ProgramConfigTest, RefusedValuesNameThePlaceAndLeaveTheTargetAlone) {
  EXPECT_THAT(ErrorOf({"--capacity-bytes", "12"}),
              HasSubstr("capacity_bytes is \"12\"; the least allowed is 1024"));
  EXPECT_THAT(ErrorOf({"--scheduler.max-batch-size", "1000"}), HasSubstr("most allowed is 256"));
  EXPECT_THAT(ErrorOf({"--scheduler.threshold", "nan"}), HasSubstr("least allowed is 0"));
  EXPECT_THAT(ErrorOf({"--mode", "on"}), HasSubstr("one of off, adaptive"));
  EXPECT_THAT(ErrorOf({"--listen"}), HasSubstr("--listen"));
  EXPECT_THAT(ErrorOf({"--config", "/nonexistent.yaml"}), HasSubstr("/nonexistent.yaml"));
  EXPECT_EQ(settings_.capacity_bytes, 1 << 20);
  EXPECT_EQ(settings_.max_batch_size, 16);
  EXPECT_EQ(settings_.mode, "off");
}

TEST_F(ProgramConfigTest, BadYamlIsRefusedWithItsLine) {
  const auto error = [this](const char* text) {
    return std::string(program_.LoadYaml(text, "f").message());
  };
  EXPECT_THAT(error("listen: [a\nmode: }"), HasSubstr("f:2: not valid YAML"));
  EXPECT_THAT(error("listen: a\nlisten: b\n"), HasSubstr("f:2: \"listen\" is given twice"));
  EXPECT_THAT(error("listen:\n"), HasSubstr("has no value"));
  EXPECT_THAT(error("just text"), HasSubstr("name: value"));
  EXPECT_THAT(error("listen: [a, b]"), HasSubstr("must be one value"));
  EXPECT_THAT(error("workers: [[a]]"), HasSubstr("list of plain values"));
  EXPECT_EQ(program_.LoadYaml("", "f"), absl::OkStatus());
  EXPECT_EQ(program_.LoadYaml("# only a comment\n", "f"), absl::OkStatus());
}

TEST_F(ProgramConfigTest, EmptyFileIsAConfiguration) {
  const std::string path = WriteFile("");
  EXPECT_EQ(Parse({"--config", path.c_str()}).status(), absl::OkStatus());
}

TEST_F(ProgramConfigTest, HelpShowsFieldsDefaultsAndExamples) {
  EXPECT_EQ(Parse({"--help"}).value(), ProgramConfig::Action::kExit);
  for (const char* part : {"A demonstration.", "--capacity-bytes", "in bytes", "1048576",
                           "--no-reflection", "one of off, adaptive", "demo --listen :1"}) {
    EXPECT_THAT(out_.str(), HasSubstr(part));
  }
}

TEST_F(ProgramConfigTest, SecretsAreNotPrinted) {
  EXPECT_EQ(Parse({"--token", "hunter2", "--print-config"}).value(), ProgramConfig::Action::kExit);
  EXPECT_EQ(settings_.token, "hunter2");
  EXPECT_THAT(out_.str(), HasSubstr("***"));
  EXPECT_THAT(out_.str(), ::testing::Not(HasSubstr("hunter2")));
}

TEST_F(ProgramConfigTest, TheLastOfRepeatedFlagsWins) {
  ASSERT_TRUE(Parse({"--reflection", "--no-reflection", "--mode=off", "--mode", "adaptive"}).ok());
  EXPECT_FALSE(settings_.reflection);
  EXPECT_EQ(settings_.mode, "adaptive");
  ASSERT_TRUE(Parse({"--reflection"}).ok());
  EXPECT_TRUE(settings_.reflection);
  ASSERT_TRUE(Parse({"--reflection=false"}).ok());
  EXPECT_FALSE(settings_.reflection);
  EXPECT_THAT(ErrorOf({"--reflection=perhaps"}), HasSubstr("--reflection"));
}

TEST_F(ProgramConfigTest, AFieldMayHaveAShortFlag) {
  ASSERT_TRUE(Parse({"-m", "adaptive"}).ok());
  EXPECT_EQ(settings_.mode, "adaptive");
  EXPECT_THAT(ErrorOf({"-m", "on"}), HasSubstr("mode is \"on\""));
  EXPECT_THAT(ErrorOf({"-x", "on"}), HasSubstr("unknown flag \"-x\""));
}

TEST_F(ProgramConfigTest, PositionalsAreTakenWhereDeclared) {
  std::vector<std::string> models;
  program_.AddPositional("MODEL", &models, "Folder of the model.");
  ASSERT_TRUE(Parse({"one", "--listen", "x", "--reflection", "two"}).ok());
  EXPECT_THAT(models, ElementsAre("one", "two"));
  EXPECT_THAT(ErrorOf({"one", "--lisen", "x"}), HasSubstr("did you mean \"--listen\"?"));
  ASSERT_TRUE(Parse({"--listen", "x", "--", "-3 + 5?", "--two"}).ok());
  EXPECT_THAT(models, ElementsAre("-3 + 5?", "--two"));
}

TEST(ProgramConfig, RequiredFieldsMustBeGiven) {
  std::string data_dir;
  ProgramConfig program("demo", "");
  program.Add("data_dir", &data_dir, {.help = "Folder.", .required = true});
  std::ostringstream out;
  const char* none[] = {"demo"};
  EXPECT_THAT(std::string(program.Parse(1, none, out).status().message()),
              HasSubstr("data_dir is required; give --data-dir"));
  const char* given[] = {"demo", "--data-dir=/x"};
  EXPECT_TRUE(program.Parse(2, given, out).ok());
  EXPECT_EQ(data_dir, "/x");
}

}  // namespace
}  // namespace troupe
