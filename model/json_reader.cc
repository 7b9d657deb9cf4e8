#include "model/json_reader.h"

#include <cmath>
#include <fstream>
#include <limits>
#include <system_error>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"

namespace troupe {
namespace {

using nlohmann::json;

constexpr size_t kMaxShownBytes = 120;
constexpr size_t kMaxConfigBytes = size_t{64} << 20;

std::string Printable(absl::string_view text) {
  const bool cut = text.size() > kMaxShownBytes;
  std::string shown = absl::Utf8SafeCEscape(std::string(text.substr(0, kMaxShownBytes)));
  absl::StrReplaceAll({{"\\\"", "\""}, {"\\'", "'"}},
                      &shown);  // quotes do no harm, and JSON is full of them
  return cut ? shown + "..." : shown;
}

// Builds a DOM, and refuses what nlohmann's own builder lets pass: duplicate keys and any depth.
class StrictBuilder final : public nlohmann::json_sax<json> {
 public:
  explicit StrictBuilder(absl::string_view file) : file_(file) {}

  bool null() override { return Add(nullptr); }
  bool boolean(bool value) override { return Add(value); }
  bool number_integer(number_integer_t value) override { return Add(value); }
  bool number_unsigned(number_unsigned_t value) override { return Add(value); }
  bool number_float(number_float_t value, const string_t&) override { return Add(value); }
  bool string(string_t& value) override { return Add(std::move(value)); }
  bool binary(binary_t&) override { return false; }
  bool start_object(size_t) override { return Open(json::object()); }
  bool start_array(size_t) override { return Open(json::array()); }
  bool end_object() override { return Close(); }
  bool end_array() override { return Close(); }

  bool key(string_t& name) override {
    json& object = *open_.back();
    if (object.contains(name)) {
      status_ = FieldError(file_, name, "the key twice", "each key once in an object");
      return false;
    }
    slot_ = &object[name];
    return true;
  }

  bool parse_error(size_t position, const std::string& token,
                   const nlohmann::detail::exception&) override {
    status_ = FieldError(file_, absl::StrFormat("byte %d", position),
                         absl::StrCat("'", Printable(token), "'"), "valid JSON");
    return false;
  }

  const absl::Status& status() const { return status_; }
  json Take() { return std::move(root_); }

 private:
  json* Place(json value) {
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    if (open_.back()->is_array()) {
      open_.back()->push_back(std::move(value));
      return &open_.back()->back();
    }
    *slot_ = std::move(value);
    return slot_;
  }

  bool Add(json value) {
    Place(std::move(value));
    return true;
  }

  bool Open(json value) {
    if (open_.size() >= kMaxJsonDepth) {
      status_ = FieldError(file_, "nesting", absl::StrFormat("more than %d levels", kMaxJsonDepth),
                           absl::StrFormat("at most %d", kMaxJsonDepth));
      return false;
    }
    open_.push_back(Place(std::move(value)));
    return true;
  }

  bool Close() {
    open_.pop_back();
    return true;
  }

  absl::string_view file_;
  json root_;
  std::vector<json*> open_;
  json* slot_ = nullptr;
  absl::Status status_;
};

}  // namespace

absl::Status FieldError(absl::string_view file, absl::string_view field, absl::string_view found,
                        absl::string_view wanted) {
  return absl::InvalidArgumentError(absl::StrCat(file, ": ", Printable(field), ": found ",
                                                 Printable(found), ", wanted ", wanted));
}

std::string Shown(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

absl::StatusOr<json> ParseJson(absl::string_view file, absl::string_view text) {
  StrictBuilder builder(file);
  if (!json::sax_parse(text.begin(), text.end(), &builder)) {
    if (!builder.status().ok()) return builder.status();
    return FieldError(file, "content", "malformed text", "valid JSON");
  }
  return builder.Take();
}

absl::StatusOr<std::string> ReadTextFile(const std::string& path, size_t max_bytes) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) {
    return absl::NotFoundError(absl::StrCat(path, ": found nothing readable, wanted a file"));
  }
  const std::streamoff size = file.tellg();
  if (size < 0 || size == std::numeric_limits<std::streamoff>::max()) {
    return FieldError(path, "size", "not a regular file", "a regular file");
  }
  if (static_cast<uint64_t>(size) > max_bytes) {
    return FieldError(path, "size", absl::StrCat(size, " bytes"),
                      absl::StrCat("at most ", max_bytes, " bytes"));
  }
  std::string text(static_cast<size_t>(size), '\0');
  file.seekg(0);
  file.read(text.data(), size);
  if (!file) return absl::UnavailableError(absl::StrCat(path, ": reading ", size, " bytes failed"));
  return text;
}

absl::StatusOr<json> ReadJsonFile(const std::string& path) {
  absl::StatusOr<std::string> text = ReadTextFile(path, kMaxConfigBytes);
  if (!text.ok()) return text.status();
  absl::StatusOr<json> value = ParseJson(path, *text);
  if (value.ok() && !value->is_object()) {
    return FieldError(path, "content", Shown(*value), "a JSON object");
  }
  return value;
}

JsonFields::JsonFields(std::string file, std::string path, const json& object)
    : file_(std::move(file)), path_(std::move(path)), object_(object) {
  if (!object_.is_object()) {
    status_ = FieldError(file_, path_.empty() ? "content" : path_, Shown(object_), "an object");
  }
}

std::string JsonFields::FieldName(absl::string_view key) const {
  return path_.empty() ? std::string(key) : absl::StrCat(path_, ".", key);
}

void JsonFields::Fail(absl::string_view key, absl::string_view found, absl::string_view wanted) {
  if (status_.ok()) status_ = FieldError(file_, FieldName(key), found, wanted);
}

const json* JsonFields::Find(absl::string_view key) {
  if (!object_.is_object()) return nullptr;
  const auto it = object_.find(std::string(key));
  if (it == object_.end()) return nullptr;
  read_.emplace(key);
  return it->is_null() ? nullptr : &*it;
}

bool JsonFields::Has(absl::string_view key) const {
  if (!object_.is_object()) return false;
  const auto it = object_.find(std::string(key));
  return it != object_.end() && !it->is_null();
}

const json* JsonFields::Require(absl::string_view key) {
  const json* value = Find(key);
  if (value == nullptr) Fail(key, "nothing", "a value: the key is required");
  return value;
}

int64_t JsonFields::CheckInt(absl::string_view key, const json& value, int64_t min, int64_t max) {
  const auto wanted = [&] { return absl::StrFormat("an integer from %d to %d", min, max); };
  if (!value.is_number_integer()) {
    Fail(key, Shown(value), wanted());
    return min;
  }
  if (value.is_number_unsigned() &&
      value.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    Fail(key, Shown(value), wanted());
    return min;
  }
  const int64_t number = value.get<int64_t>();
  if (number < min || number > max) {
    Fail(key, Shown(value), wanted());
    return min;
  }
  return number;
}

int64_t JsonFields::Int(absl::string_view key, int64_t min, int64_t max) {
  const json* value = Require(key);
  return value == nullptr ? min : CheckInt(key, *value, min, max);
}

int64_t JsonFields::IntOr(absl::string_view key, int64_t min, int64_t max, int64_t otherwise) {
  const json* value = Find(key);
  return value == nullptr ? otherwise : CheckInt(key, *value, min, max);
}

double JsonFields::CheckNumber(absl::string_view key, const json& value, double min, double max) {
  const double number = value.is_number() ? value.get<double>() : std::nan("");
  if (!(number >= min && number <= max)) {
    Fail(key, Shown(value), absl::StrFormat("a number from %g to %g", min, max));
    return min;
  }
  return number;
}

double JsonFields::Number(absl::string_view key, double min, double max) {
  const json* value = Require(key);
  return value == nullptr ? min : CheckNumber(key, *value, min, max);
}

double JsonFields::NumberOr(absl::string_view key, double min, double max, double otherwise) {
  const json* value = Find(key);
  return value == nullptr ? otherwise : CheckNumber(key, *value, min, max);
}

bool JsonFields::Bool(absl::string_view key) {
  Require(key);
  return BoolOr(key, false);
}

bool JsonFields::BoolOr(absl::string_view key, bool otherwise) {
  const json* value = Find(key);
  if (value == nullptr) return otherwise;
  if (!value->is_boolean()) {
    Fail(key, Shown(*value), "true or false");
    return otherwise;
  }
  return value->get<bool>();
}

std::string JsonFields::String(absl::string_view key) {
  const json* value = Require(key);
  if (value == nullptr) return "";
  if (!value->is_string()) {
    Fail(key, Shown(*value), "a string");
    return "";
  }
  return value->get<std::string>();
}

std::string JsonFields::StringOr(absl::string_view key, absl::string_view otherwise) {
  if (Has(key)) return String(key);
  Ignore({key});
  return std::string(otherwise);
}

std::vector<int64_t> JsonFields::IntList(absl::string_view key, int64_t min, int64_t max) {
  Require(key);
  return IntListOr(key, min, max, {});
}

std::vector<int64_t> JsonFields::IntListOr(absl::string_view key, int64_t min, int64_t max,
                                           std::vector<int64_t> otherwise) {
  const json* value = Find(key);
  if (value == nullptr) return otherwise;
  if (!value->is_array()) {
    Fail(key, Shown(*value), "a list of integers");
    return otherwise;
  }
  std::vector<int64_t> list;
  for (size_t i = 0; i < value->size(); ++i) {
    list.push_back(CheckInt(absl::StrCat(key, "[", i, "]"), (*value)[i], min, max));
  }
  return list;
}

std::vector<std::string> JsonFields::StringList(absl::string_view key) {
  const json* value = Require(key);
  std::vector<std::string> list;
  if (value == nullptr) return list;
  if (!value->is_array()) {
    Fail(key, Shown(*value), "a list of strings");
    return list;
  }
  for (size_t i = 0; i < value->size(); ++i) {
    if (!(*value)[i].is_string()) {
      Fail(absl::StrCat(key, "[", i, "]"), Shown((*value)[i]), "a string");
      return list;
    }
    list.push_back((*value)[i].get<std::string>());
  }
  return list;
}

std::vector<int64_t> JsonFields::IntOrList(absl::string_view key, int64_t min, int64_t max) {
  const json* value = Find(key);
  if (value == nullptr) return {};
  if (value->is_array()) return IntListOr(key, min, max, {});
  return {CheckInt(key, *value, min, max)};
}

const json* JsonFields::Object(absl::string_view key) {
  const json* value = Find(key);
  if (value != nullptr && !value->is_object()) {
    Fail(key, Shown(*value), "an object");
    return nullptr;
  }
  return value;
}

void JsonFields::Only(absl::string_view key, const json& supported) {
  const json* value = Find(key);
  if (value != nullptr && *value != supported) {
    Fail(key, Shown(*value), absl::StrCat(Shown(supported), ", the only one supported"));
  }
}

void JsonFields::Ignore(std::initializer_list<absl::string_view> keys) {
  for (absl::string_view key : keys) read_.emplace(key);
}

void JsonFields::Nested(JsonFields& fields) {
  const absl::Status nested = fields.Finish();
  if (status_.ok()) status_ = nested;
}

absl::Status JsonFields::Finish() {
  if (!status_.ok()) return status_;
  for (const auto& [key, value] : object_.items()) {
    if (!value.is_null() && !read_.contains(key)) {
      return FieldError(file_, FieldName(key), Shown(value),
                        "no such key: it may change the result and is not understood");
    }
  }
  return absl::OkStatus();
}

}  // namespace troupe
