#include "worker/device_input.h"

namespace troupe {

DeviceInput::DeviceInput(const StepInput& input, Ops& ops)
    : batch_(input.batch()),
      token_ids_(Staged(ops, input.token_ids(), input.tokens())),
      gate_rules_(Staged(ops, input.gate_rules(), input.rows())),
      logit_tokens_(input.logit_tokens()) {
  if (input.draws()) {
    draw_rules_ = Staged(ops, input.draw_rules(), static_cast<int64_t>(logit_tokens_.size()));
  }
  batch_.slot = Staged(ops, batch_.slot, batch_.rows);
  batch_.start = Staged(ops, batch_.start, batch_.rows);
  batch_.first = Staged(ops, batch_.first, batch_.rows + 1);
  batch_.position = Staged(ops, batch_.position, batch_.tokens);
  batch_.token_row = Staged(ops, batch_.token_row, batch_.tokens);
}

void DeviceInput::WidenLongest() {
  int longest = 512;
  while (longest < batch_.longest) longest *= 2;
  batch_.longest = longest;
}

}  // namespace troupe
