// Settings of the neural memory, and how they come in from Python.
//
// Python names them once, as lists of numbers, and gets a tensor for it that all operators take: to build a
// dictionary in every call would take as long as a tenth of a step.
#pragma once

#include <ATen/Functions.h>
#include <ATen/core/Dict.h>
#include <ATen/core/List.h>
#include <c10/util/Exception.h>

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

namespace mnm {

enum class WriteRule { local, gradient };  // Eq. 4, Eq. 3; on the Python side _RULE_NUMBERS
enum class Normalization { squared_norm, width, none };  // the places in the type Normalization

struct Settings {
  std::vector<int64_t> widths;  // D_0 ... D_L
  int64_t heads;
  int64_t rates;  // 1 or L
  WriteRule write_rule;
  bool tanh_output;
  Normalization normalization;
  std::vector<double> recall_weights;  // lambda_0 ... lambda_{N-1}

  int64_t layers() const { return static_cast<int64_t>(widths.size()) - 1; }
  int64_t delays() const { return static_cast<int64_t>(recall_weights.size()); }
  int64_t reads() const { return heads * (1 + delays()); }
  int64_t key() const { return widths.front(); }
  int64_t value() const { return widths.back(); }
  int64_t targets() const {
    int64_t sum = 0;
    for (int64_t l = 1; l <= layers(); ++l) sum += widths[l];
    return sum;
  }
  // Numbers in one step's interaction vectors: read keys, write keys, write values, rate vector.
  int64_t vectors() const { return heads * (2 * key() + value()) + key(); }
  bool gradient_rule() const { return write_rule == WriteRule::gradient; }
  bool linear(int64_t layer) const { return layer == layers() && !tanh_output; }
  // Whether the error of a layer has the derivative of its nonlinearity as a factor.
  bool error_has_slope(int64_t layer) const { return gradient_rule() && !linear(layer); }
};

// `Dict(str, float[])` of an operator's schema.
using NamedNumbers = c10::Dict<std::string, c10::List<double>>;

// Reads settings by name and says what is wrong with one.
class SettingsReader {
 public:
  explicit SettingsReader(const NamedNumbers& all) : named(all) {}

  std::vector<double> numbers(const char* name, size_t least, size_t most) const {
    const auto found = named.find(name);
    TORCH_CHECK_VALUE(found != named.end(), "settings has no ", name, ".");
    const std::vector<double> values = found->value().vec();
    TORCH_CHECK_VALUE(
        values.size() >= least && values.size() <= most, "settings: ", name, " has ", values.size(),
        " numbers; expected are ", least, most > least ? " or more." : ".");
    for (const double value : values)
      TORCH_CHECK_VALUE(std::isfinite(value), "settings: ", name, " must be finite, not ", value, ".");
    return values;
  }

  std::vector<int64_t> whole_numbers(
      const char* name, size_t least_count, size_t most_count, int64_t least, int64_t most) const {
    std::vector<int64_t> values;
    for (const double value : numbers(name, least_count, most_count)) {
      TORCH_CHECK_VALUE(
          value == std::floor(value) && value >= least && value <= most, "settings: ", name, " must be from ",
          least, " to ", most, ", not ", value, ".");
      values.push_back(static_cast<int64_t>(value));
    }
    return values;
  }

  int64_t whole_number(const char* name, int64_t least, int64_t most) const {
    return whole_numbers(name, 1, 1, least, most)[0];
  }

 private:
  const NamedNumbers& named;
};

// So that no product of two sizes overflows.
constexpr int64_t kLargest = 1 << 24;

inline Settings read_settings(const NamedNumbers& named) {
  constexpr size_t kFields = 7, kMany = 1 << 16;
  const SettingsReader reader(named);
  Settings settings{
      reader.whole_numbers("widths", 2, kMany, 1, kLargest),
      reader.whole_number("heads", 1, kLargest),
      reader.whole_number("rates", 1, kLargest),
      static_cast<WriteRule>(reader.whole_number("write_rule", 0, 1)),
      reader.whole_number("tanh_output", 0, 1) == 1,
      static_cast<Normalization>(reader.whole_number("normalization", 0, 2)),
      reader.numbers("recall_weights", 1, kMany)};
  TORCH_CHECK_VALUE(
      settings.rates == 1 || settings.rates == settings.layers(), "settings: rates must be 1 or the ",
      settings.layers(), " layers, not ", settings.rates, ".");
  TORCH_CHECK_VALUE(
      named.size() == kFields, "settings has ", named.size(), " names; expected are ", kFields, ".");
  return settings;
}

// Settings as a row of numbers and back: the number of widths, the single numbers, widths, recall weights.
inline at::Tensor to_tensor(const Settings& s) {
  std::vector<double> row{
      static_cast<double>(s.widths.size()),  static_cast<double>(s.heads), static_cast<double>(s.rates),
      static_cast<double>(s.write_rule),     static_cast<double>(s.tanh_output),
      static_cast<double>(s.normalization)};
  row.insert(row.end(), s.widths.begin(), s.widths.end());
  row.insert(row.end(), s.recall_weights.begin(), s.recall_weights.end());
  const at::Tensor tensor = at::empty({static_cast<int64_t>(row.size())}, at::kDouble);
  std::copy(row.begin(), row.end(), tensor.data_ptr<double>());
  return tensor;
}

inline Settings from_tensor(const at::Tensor& tensor) {
  constexpr int64_t kSingle = 6;
  const auto check = [](bool is_right) {
    TORCH_CHECK_VALUE(is_right, "settings must be what the operator `settings` returned.");
  };
  check(
      tensor.defined() && tensor.device().is_cpu() && tensor.scalar_type() == at::kDouble &&
      tensor.dim() == 1 && tensor.is_contiguous() && tensor.has_storage() && tensor.numel() > kSingle);
  const double* at = tensor.const_data_ptr<double>();
  const double* const end = at + tensor.numel();
  const auto whole = [&](int64_t least, int64_t most) {
    const double value = *at++;
    check(value >= least && value <= most && value == std::floor(value));
    return static_cast<int64_t>(value);
  };
  const int64_t widths = whole(2, tensor.numel() - kSingle - 1);
  Settings s{{}, whole(1, kLargest), whole(1, kLargest), static_cast<WriteRule>(whole(0, 1)), whole(0, 1) == 1,
             static_cast<Normalization>(whole(0, 2)), {}};
  for (int64_t l = 0; l < widths; ++l) s.widths.push_back(whole(1, kLargest));
  s.recall_weights.assign(at, end);
  for (const double weight : s.recall_weights) check(std::isfinite(weight));
  check(s.rates == 1 || s.rates == s.layers());
  return s;
}

}  // namespace mnm
