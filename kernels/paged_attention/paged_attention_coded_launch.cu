#include "kernels/cuda/attention_units_launch.cuh"
#include "kernels/paged_attention/paged_attention_coded.cuh"

namespace troupe {
namespace {

// Column blocks as there are kernels for.
UnitBlocks FindCodedBlocks(int key_dim, int value_dim) {
  const UnitBlocks blocks = FindUnitBlocks(key_dim, value_dim);
  return blocks.keys == 3 ? UnitBlocks{4, 4} : blocks;
}

template <int kBlocks>
void LaunchCodedSizes(const UnitLaunch& launch, const CudaContext& context) {
  const UnitAttentionParams& params = launch.params;
  if constexpr (UnitsMayPair(kBlocks)) {
    if (launch.choice.warpgroups == 2) {
      LaunchUnitKernel<UnitSizes<kBlocks, kBlocks, 2, true, true>, Seen::kWindow>(
          params, launch.choice, context);
      return;
    }
  }
  CHECK_EQ(launch.choice.warpgroups, 1);
  if (params.attention.parts == 1) {
    LaunchUnitKernel<UnitSizes<kBlocks, kBlocks, 1, true, true>, Seen::kWindow>(
        params, launch.choice, context);
  } else {
    LaunchUnitKernel<UnitSizes<kBlocks, kBlocks, 1, false, true>, Seen::kWindow>(
        params, launch.choice, context);
  }
}

bool InWholeRows(const KvStream& stream) {
  return stream.dtype == DType::kE4M3 && stream.entries_per_page == kAttentionTile &&
         stream.page_bytes % 16 == 0 && reinterpret_cast<uintptr_t>(stream.base) % 16 == 0;
}

}  // namespace

bool CodedAttentionTakes(int key_dim, int value_dim) {
  return key_dim > 0 && value_dim > 0 && key_dim % 16 == 0 && value_dim % 16 == 0 &&
         FindCodedBlocks(key_dim, value_dim).keys > 0;
}

void PagedAttentionCoded(const AttentionParams& attention, int64_t most_tiles,
                         const CudaContext& context) {
  CHECK(InWholeRows(attention.k) && InWholeRows(attention.v)) << "pages of codes";
  CHECK(CodedAttentionTakes(attention.k.head_dim, attention.v.head_dim))
      << attention.k.head_dim << " and " << attention.v.head_dim << " channels";
  CHECK_GT(attention.scale_log2, 0);
  if (attention.batch.tokens == 0) return;
  UnitLaunch launch = MakeUnitLaunch<Seen::kWindow>(attention, most_tiles, context);
  if (!context.errors.ok()) return;
  switch (FindCodedBlocks(attention.k.head_dim, attention.v.head_dim).keys) {
    case 1:
      LaunchCodedSizes<1>(launch, context);
      break;
    case 2:
      LaunchCodedSizes<2>(launch, context);
      break;
    default:
      LaunchCodedSizes<4>(launch, context);
  }
  if (launch.choice.parts > 1) LaunchMerge<Seen::kWindow>(launch.params, context);
}

}  // namespace troupe
