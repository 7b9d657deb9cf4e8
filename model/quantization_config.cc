// Quantization::Read: the keys of quantization_config, format by format.
#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "model/quantization.h"

namespace troupe {
namespace {

constexpr int64_t kMaxGroup = 1 << 20;
constexpr absl::string_view kFloat8Activations = ", activations not rounded to float8";

std::string StringOr(JsonFields& fields, absl::string_view key, absl::string_view otherwise) {
  fields.Ignore({key});  // null counts as absent
  return fields.Has(key) ? fields.String(key) : std::string(otherwise);
}

// 4 or 8.
int BitsField(JsonFields& fields, absl::string_view key) {
  const int64_t bits = fields.Int(key, 2, 8);
  if (bits != 4 && bits != 8) fields.Fail(key, absl::StrCat(bits), "4 or 8");
  return static_cast<int>(bits);
}

// -1 stands for the whole row, which is 0 in a WeightScheme.
int64_t GroupSizeField(JsonFields& fields, absl::string_view key) {
  const int64_t size = fields.Int(key, -1, kMaxGroup);
  if (size == 0) fields.Fail(key, "0", "-1 or at least 1");
  return size == -1 ? 0 : size;
}

std::string OneOf(JsonFields& fields, absl::string_view key, absl::string_view otherwise,
                  std::initializer_list<absl::string_view> supported) {
  std::string value = absl::AsciiStrToLower(StringOr(fields, key, otherwise));
  for (absl::string_view each : supported) {
    if (value == each) return value;
  }
  fields.Fail(key, value, absl::StrCat("one of ", absl::StrJoin(supported, ", ")));
  return value;
}

std::string GroupName(int64_t group_size) {
  return group_size == 0 ? "row" : absl::StrCat("group ", group_size);
}

// What a group of compressed-tensors wants of activations, for its weights' scheme and name.
void ReadActivations(JsonFields& group, const std::string& weight_type, WeightScheme& scheme,
                     std::string& name) {
  if (group.Object("output_activations") != nullptr) {
    group.Fail("output_activations", "an object", "null: results are not quantised");
  }
  constexpr absl::string_view kKey = "input_activations";
  const nlohmann::json* object = group.Object(kKey);
  if (object == nullptr) return;
  // Fixed scales would be part of the model.
  const auto dynamic = object->find("dynamic");
  if (dynamic == object->end() || *dynamic == false) {
    return group.Fail(kKey, "scales that are fixed", "null, or dynamic: true");
  }
  JsonFields fields(group.file(), group.FieldName(kKey), *object);
  fields.Only("dynamic", true);
  fields.Only("num_bits", 8);
  fields.Only("symmetric", true);
  fields.Only("actorder", nullptr);
  fields.Ignore({"block_structure", "group_size", "observer", "observer_kwargs", "scale_dtype",
                 "strategy", "zp_dtype"});
  if (OneOf(fields, "type", "int", {"int", "float"}) == "float") {
    absl::StrAppend(&name, kFloat8Activations);
    return group.Nested(fields);
  }
  if (weight_type != "int") fields.Fail("type", "int", "float, as the weights");
  // One scale for all tokens of a step would make a result depend on the batch.
  const std::string strategy =
      OneOf(fields, "strategy", fields.Has("group_size") ? "group" : "tensor", {"token", "group"});
  if (strategy == "group" && GroupSizeField(fields, "group_size") != scheme.group_size) {
    fields.Fail("group_size", Shown((*object)["group_size"]), "the weights' group_size");
  }
  scheme.products = strategy == "token" ? Precision::kInt8Rows : Precision::kInt8Groups;
  absl::StrAppend(&name, ", activations int8 by ", strategy);
  group.Nested(fields);
}

}  // namespace

void Quantization::ReadIgnored(JsonFields& fields, absl::string_view key) {
  fields.Ignore({key});
  if (!fields.Has(key)) return;
  for (std::string& name : fields.StringList(key)) ignored_.push_back(std::move(name));
}

void Quantization::ReadFp8(JsonFields& fields) {
  fields.Only("fmt", "e4m3");
  // How activations are scaled on the fly, and how the rounding of those scales is spelled.
  const bool rounds = fields.Has("activation_scheme");
  OneOf(fields, "activation_scheme", "dynamic", {"dynamic"});
  OneOf(fields, "scale_fmt", "float", {"float", "ue8m0"});
  const std::vector<int64_t> block =
      fields.IntListOr("weight_block_size", 1, kMaxGroup, {128, 128});
  if (block.size() != 2) {
    fields.Fail("weight_block_size", absl::StrCat(block.size(), " sizes"), "2: rows, columns");
    return;
  }
  rules_.push_back({{},
                    {.layout = WeightLayout::kFp8,
                     .bits = 8,
                     .block_rows = block[0],
                     .block_cols = block[1],
                     .scale_suffix = "weight_scale_inv"}});
  name_ = absl::StrCat("fp8 block ", block[0], "x", block[1]);
  if (rounds) absl::StrAppend(&name_, kFloat8Activations);
}

void Quantization::ReadGptq(JsonFields& fields) {
  WeightScheme scheme{.layout = WeightLayout::kGptq, .bits = BitsField(fields, "bits")};
  scheme.group_size = GroupSizeField(fields, "group_size");
  // Zeros are stored whether or not they are all the same.
  fields.BoolOr("sym", true);
  // Columns say themselves to which group they belong.
  fields.BoolOr("desc_act", false);
  scheme.reordered = true;
  const std::string format = OneOf(fields, "checkpoint_format", "gptq", {"gptq", "gptq_v2"});
  scheme.zero_bias = format == "gptq" ? 1 : 0;
  fields.Only("pack_dtype", "int32");
  fields.Only("is_marlin_format", false);
  fields.Only("dynamic", nlohmann::json::object());  // other settings for some modules
  fields.Only("lm_head", false);
  // How the codes were found, and what to run them with.
  fields.Ignore({"static_groups",
                 "true_sequential",
                 "damp_percent",
                 "damp_auto_increment",
                 "mse",
                 "model_name_or_path",
                 "model_file_base_name",
                 "quantizer",
                 "meta",
                 "dataset",
                 "tokenizer",
                 "batch_size",
                 "block_name_to_quantize",
                 "cache_block_outputs",
                 "max_input_length",
                 "module_name_preceding_first_block",
                 "pad_token_id",
                 "modules_in_block_to_quantize",
                 "use_cuda_fp16",
                 "model_seqlen",
                 "use_exllama",
                 "disable_exllama",
                 "exllama_config",
                 "backend",
                 "version",
                 "act_group_aware"});
  name_ = absl::StrCat("gptq int", scheme.bits, " ", GroupName(scheme.group_size));
  rules_.push_back({{}, std::move(scheme)});
}

void Quantization::ReadAwq(JsonFields& fields) {
  fields.Only("bits", 4);
  fields.Only("zero_point", true);
  OneOf(fields, "version", "gemm", {"gemm"});
  WeightScheme scheme{.layout = WeightLayout::kAwq, .bits = 4};
  scheme.group_size = GroupSizeField(fields, "group_size");
  fields.Ignore({"backend", "do_fuse", "fuse_max_seq_len", "modules_to_fuse", "exllama_config"});
  name_ = absl::StrCat("awq int4 ", GroupName(scheme.group_size));
  rules_.push_back({{}, std::move(scheme)});
}

void Quantization::ReadMxfp4(JsonFields& fields) {
  fields.Only("dequantize", false);
  rules_.push_back({{}, {.layout = WeightLayout::kMxfp4Experts, .bits = 4, .group_size = 32}});
  name_ = "mxfp4";
}

void Quantization::ReadCompressedGroup(const std::string& format, JsonFields& group) {
  Rule rule;
  group.Ignore({"targets"});
  if (group.Has("targets")) {
    rule.targets = group.StringList("targets");
    // The class of all modules that multiply by a matrix.
    if (std::find(rule.targets.begin(), rule.targets.end(), "Linear") != rule.targets.end()) {
      rule.targets.clear();
    }
  }
  const std::string own = StringOr(group, "format", format);
  const nlohmann::json* weights = group.Object("weights");
  if (weights == nullptr) return group.Fail("weights", "nothing", "an object");
  JsonFields fields(group.file(), group.FieldName("weights"), *weights);
  WeightScheme scheme{.bits = BitsField(fields, "num_bits")};
  const std::string type = OneOf(fields, "type", "int", {"int", "float"});
  scheme.symmetric = fields.BoolOr("symmetric", true);
  fields.Only("dynamic", false);
  const std::string strategy =
      OneOf(fields, "strategy", fields.Has("group_size") ? "group" : "tensor",
            {"group", "channel", "tensor", "block"});
  if (strategy == "group") {
    scheme.group_size = GroupSizeField(fields, "group_size");
  } else {
    fields.Ignore({"group_size"});
  }
  scheme.one_scale = strategy == "tensor";
  const bool block = strategy == "block";
  const std::vector<int64_t> sizes =
      block ? fields.IntList("block_structure", 1, kMaxGroup) : std::vector<int64_t>{1, 0};
  if (block) {
    if (sizes.size() != 2) fields.Fail("block_structure", "not 2 sizes", "rows, columns");
  } else {
    fields.Ignore({"block_structure"});
  }
  const std::string order =
      OneOf(fields, "actorder", "none", {"none", "weight", "static", "group"});
  scheme.reordered = order == "group";
  fields.Ignore({"observer", "observer_kwargs", "scale_dtype", "zp_dtype"});
  if (type == "float") {
    scheme.layout = WeightLayout::kFp8;
    if (own != "float-quantized" && own != "naive-quantized") {
      group.Fail("format", own, "float-quantized or naive-quantized for weights of type float");
    }
    if (scheme.bits != 8) fields.Fail("num_bits", absl::StrCat(scheme.bits), "8 for type float");
    if (!scheme.symmetric) fields.Fail("symmetric", "false", "true for type float");
    if (sizes.size() == 2) {
      scheme.block_rows = sizes[0];
      scheme.block_cols = strategy == "group" ? scheme.group_size : sizes[1];
    }
  } else if (own == "pack-quantized") {
    scheme.layout = WeightLayout::kPackedInts;
  } else if (own == "int-quantized" || own == "naive-quantized") {
    scheme.layout = WeightLayout::kPlainInts;
    if (scheme.bits != 8) {
      fields.Fail("num_bits", absl::StrCat(scheme.bits), absl::StrCat("8 for ", own));
    }
  } else {
    group.Fail("format", own,
               "one of pack-quantized, int-quantized, float-quantized, naive-quantized");
  }
  if (block && type != "float") fields.Fail("strategy", "block", "group, channel or tensor");
  name_ = absl::StrCat("compressed-tensors ", own, " ", type, scheme.bits, " ",
                       strategy == "group" ? GroupName(scheme.group_size) : strategy);
  ReadActivations(group, type, scheme, name_);
  rule.scheme = std::move(scheme);
  rules_.push_back(std::move(rule));
  group.Nested(fields);
}

void Quantization::ReadCompressedTensors(JsonFields& fields) {
  OneOf(fields, "quantization_status", "compressed", {"compressed", "frozen"});
  fields.Ignore({"global_compression_ratio", "version"});
  if (fields.Object("kv_cache_scheme") != nullptr) {
    fields.Fail("kv_cache_scheme", "an object", "null: keys and values are not quantised");
  }
  for (absl::string_view key : {"sparsity_config", "transform_config"}) {
    const nlohmann::json* object = fields.Object(key);
    const bool dense = object != nullptr && object->value("format", "") == "dense";
    if (object != nullptr && !object->empty() && !dense) {
      fields.Fail(key, Shown(*object), "nothing");
    }
  }
  ReadIgnored(fields, "ignore");
  const std::string format = StringOr(fields, "format", "pack-quantized");
  const nlohmann::json* groups = fields.Object("config_groups");
  if (groups == nullptr || groups->empty()) {
    return fields.Fail("config_groups", "nothing", "at least one group");
  }
  const std::string path = fields.FieldName("config_groups");
  for (const auto& [key, value] : groups->items()) {
    JsonFields group(fields.file(), absl::StrCat(path, ".", key), value);
    ReadCompressedGroup(format, group);
    fields.Nested(group);
  }
}

Quantization Quantization::Read(JsonFields& config) {
  Quantization result;
  const absl::string_view key =
      config.Has("quantization_config") ? "quantization_config" : "compression_config";
  config.Ignore({"quantization_config", "compression_config"});
  const nlohmann::json* object = config.Object(key);
  if (object == nullptr) return result;
  JsonFields fields(config.file(), config.FieldName(key), *object);
  const std::string method =
      OneOf(fields, "quant_method", "", {"fp8", "gptq", "awq", "mxfp4", "compressed-tensors"});
  if (fields.status().ok()) {
    result.ReadIgnored(fields, "modules_to_not_convert");
    result.ReadIgnored(fields, "ignored_layers");
    if (method == "fp8") result.ReadFp8(fields);
    if (method == "gptq") result.ReadGptq(fields);
    if (method == "awq") result.ReadAwq(fields);
    if (method == "mxfp4") result.ReadMxfp4(fields);
    if (method == "compressed-tensors") result.ReadCompressedTensors(fields);
  }
  config.Nested(fields);
  return result;
}

}  // namespace troupe
