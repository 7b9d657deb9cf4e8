// JSON of checkpoints, read strictly: one error form, duplicate keys and deep nesting refused, and
// no key of a config left unread by accident.
//
// Thread model: plain values. Ownership: JsonFields borrows the object it reads.
// Errors: InvalidArgument "FILE: FIELD: found X, wanted Y".
#ifndef TROUPE_MODEL_JSON_READER_H_
#define TROUPE_MODEL_JSON_READER_H_

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace troupe {

// "FILE: FIELD: found FOUND, wanted WANTED"; FOUND is shortened and made printable.
absl::Status FieldError(absl::string_view file, absl::string_view field, absl::string_view found,
                        absl::string_view wanted);

// A JSON value as it appears in an error.
std::string Shown(const nlohmann::json& value);

// Objects may nest this deep; nothing in a checkpoint comes near it.
inline constexpr int kMaxJsonDepth = 64;

// Parses `text` as exactly one JSON value. `file` names it in errors.
absl::StatusOr<nlohmann::json> ParseJson(absl::string_view file, absl::string_view text);

// Reads a whole file, at most `max_bytes` of it. NotFound, or InvalidArgument when it is larger.
absl::StatusOr<std::string> ReadTextFile(const std::string& path, size_t max_bytes);

absl::StatusOr<nlohmann::json> ReadJsonFile(const std::string& path);

// Typed access to the fields of one object. The first error is kept and every later read returns a
// default, so that a mapping reads as a list of fields; call Finish() before using any of them.
// A key whose value is null counts as absent.
class JsonFields {
 public:
  // `path` is where the object stands in the file ("" for the top, else "rope_parameters").
  JsonFields(std::string file, std::string path, const nlohmann::json& object);

  bool Has(absl::string_view key) const;  // present and not null

  int64_t Int(absl::string_view key, int64_t min, int64_t max);
  int64_t IntOr(absl::string_view key, int64_t min, int64_t max, int64_t otherwise);
  double Number(absl::string_view key, double min, double max);
  double NumberOr(absl::string_view key, double min, double max, double otherwise);
  bool Bool(absl::string_view key);
  bool BoolOr(absl::string_view key, bool otherwise);
  std::string String(absl::string_view key);
  std::string StringOr(absl::string_view key, absl::string_view otherwise);
  std::vector<int64_t> IntList(absl::string_view key, int64_t min, int64_t max);
  std::vector<int64_t> IntListOr(absl::string_view key, int64_t min, int64_t max,
                                 std::vector<int64_t> otherwise);
  std::vector<std::string> StringList(absl::string_view key);
  // One integer or a list of them; empty when absent.
  std::vector<int64_t> IntOrList(absl::string_view key, int64_t min, int64_t max);
  // The nested object, nullptr when absent.
  const nlohmann::json* Object(absl::string_view key);

  // The only value that is supported; absent counts as it.
  void Only(absl::string_view key, const nlohmann::json& supported);
  // Keys that do not change what the model computes.
  void Ignore(std::initializer_list<absl::string_view> keys);
  // Records an error of the caller's own about `key`.
  void Fail(absl::string_view key, absl::string_view found, absl::string_view wanted);

  // Takes over the first error of a nested object, which is finished with it.
  void Nested(JsonFields& fields);

  // The first error so far.
  const absl::Status& status() const { return status_; }

  // The first error, or one for the first key with a value that nothing read.
  absl::Status Finish();

  const std::string& file() const { return file_; }
  std::string FieldName(absl::string_view key) const;

 private:
  const nlohmann::json* Find(absl::string_view key);     // marks as read; null when absent
  const nlohmann::json* Require(absl::string_view key);  // and records an error when absent
  int64_t CheckInt(absl::string_view key, const nlohmann::json& value, int64_t min, int64_t max);
  double CheckNumber(absl::string_view key, const nlohmann::json& value, double min, double max);

  std::string file_;
  std::string path_;
  const nlohmann::json& object_;
  std::set<std::string, std::less<>> read_;
  absl::Status status_;
};

}  // namespace troupe

#endif  // TROUPE_MODEL_JSON_READER_H_
