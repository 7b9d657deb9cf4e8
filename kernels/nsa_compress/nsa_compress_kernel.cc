#include "kernels/nsa_compress/nsa_compress_kernel.h"

#include "kernels/kv_rows.h"
#include "kernels/simd/simd.h"
#include "kernels/simd/transpose.h"

namespace troupe::TROUPE_ISA {
namespace {

constexpr int kTileRows = kLanes == 16 ? 4 : 2;
constexpr int kTileVecs = 4;

void TransposeSquare(const float* from, int size, float* to) {
  for (int row = 0; row < size; row += kLanes) {
    for (int col = 0; col < size; col += kLanes) {
      Vec m[kLanes];
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) m[i] = Load(from + (row + i) * size + col);
      Transpose(m);
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) Store(to + (col + i) * size + row, m[i]);
    }
  }
}

// N vectors of M rows of x w; x [rows, size], w [size, size].
template <int M, int N>
void TimesTile(const float* x, const float* w, int size, float* out) {
  Vec acc[M][N];
#pragma GCC unroll 4
  for (int r = 0; r < M; ++r) {
#pragma GCC unroll 4
    for (int i = 0; i < N; ++i) acc[r][i] = Zero();
  }
  for (int c = 0; c < size; ++c) {
    Vec row[N];
#pragma GCC unroll 4
    for (int i = 0; i < N; ++i) row[i] = Load(w + c * size + i * kLanes);
#pragma GCC unroll 4
    for (int r = 0; r < M; ++r) {
      const Vec value = Set1(x[r * size + c]);
#pragma GCC unroll 4
      for (int i = 0; i < N; ++i) acc[r][i] = Fma(value, row[i], acc[r][i]);
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < M; ++r) {
#pragma GCC unroll 4
    for (int i = 0; i < N; ++i) Store(out + r * size + i * kLanes, acc[r][i]);
  }
}

template <int M>
void TimesRows(const float* x, const float* w, int size, float* out) {
  int col = 0;
  for (; col + kTileVecs * kLanes <= size; col += kTileVecs * kLanes) {
    TimesTile<M, kTileVecs>(x, w + col, size, out + col);
  }
  for (; col < size; col += kLanes) TimesTile<M, 1>(x, w + col, size, out + col);
}

void Times(const float* x, const float* w, int rows, int size, float* out) {
  int row = 0;
  for (; row + kTileRows <= rows; row += kTileRows) {
    TimesRows<kTileRows>(x + row * size, w, size, out + row * size);
  }
  for (; row < rows; ++row) TimesRows<1>(x + row * size, w, size, out + row * size);
}

template <class Row>
void LoadRaw(const KvStream& raw, const uint32_t* pages, int64_t first, int count, int kv_head,
             float* z) {
  const int size = raw.head_dim;
  for (int m = 0; m < count; ++m, z += size) {
    const int64_t token = first + m;
    const Row from = HeadRows<Row>(raw, pages[token / raw.entries_per_page], kv_head)
                         .At(token % raw.entries_per_page);
    for (int c = 0; c < size; c += kLanes) Store(z + c, Load(from + c));
  }
}

// The sum of z by the softmax of `logits` over the rows, channel by channel.
void WeighRaw(const float* z, const float* logits, int rows, int size, float* out) {
  for (int c = 0; c < size; c += kLanes) {
    Vec largest = Load(logits + c);
    for (int m = 1; m < rows; ++m) largest = Max(largest, Load(logits + m * size + c));
    Vec sum = Zero();
    Vec weighted = Zero();
    for (int m = 0; m < rows; ++m) {
      const Vec weight = Exp(Load(logits + m * size + c) - largest);
      sum = sum + weight;
      weighted = Fma(weight, Load(z + m * size + c), weighted);
    }
    Store(out + c, weighted / sum);
  }
}

void Normalise(float* x, const float* weight, int size, float eps) {
  Vec squares = Zero();
  for (int c = 0; c < size; c += kLanes) squares = Fma(Load(x + c), Load(x + c), squares);
  const float mean = Sum(squares) / static_cast<float>(size);
  const Vec scale = Set1(1.0F) / Sqrt(Set1(mean + eps));
  for (int c = 0; c < size; c += kLanes) Store(x + c, Load(x + c) * scale * Load(weight + c));
}

}  // namespace

void NsaTransposePhi(const NsaPhi& phi, int head_dim, NsaTransposedPhi to) {
  TransposeSquare(phi.w1, head_dim, to.w1);
  TransposeSquare(phi.w2, head_dim, to.w2);
}

void NsaCompressEntry(const NsaCompressParams& params, NsaEntry entry, int kv_head, bool is_key,
                      NsaTransposedPhi phi, float* scratch) {
  const int size = params.k.head_dim;
  const int rows = params.sizes.compress_block;
  const uint32_t slot = params.batch.slot[entry.row];
  const KvStream& raw = is_key ? params.raw_k : params.raw_v;
  const KvStream& stream = is_key ? params.k : params.v;
  const float* position = is_key ? params.phi_k.position : params.phi_v.position;
  float* z = scratch;
  float* u = z + rows * size;
  float* logits = u + rows * size;

  const int64_t first = (entry.entry + 1) * params.sizes.compress_stride - rows;
  const uint32_t* raw_pages = params.raw_tables.pages + slot * params.raw_tables.stride;
  WithRows(raw.dtype, [&]<class Row>() { LoadRaw<Row>(raw, raw_pages, first, rows, kv_head, z); });
  for (int i = 0; i < rows * size; i += kLanes) Store(logits + i, Load(z + i) + Load(position + i));
  Times(logits, phi.w1, rows, size, u);
  for (int i = 0; i < rows * size; i += kLanes) Store(u + i, Silu(Load(u + i)));
  Times(u, phi.w2, rows, size, logits);
  WeighRaw(z, logits, rows, size, u);
  if (is_key) Normalise(u, params.k_norm, size, params.eps);
  const uint32_t* pages = params.tables.pages + slot * params.tables.stride;
  WriteRow(u, stream, pages[entry.entry / stream.entries_per_page], kv_head,
           entry.entry % stream.entries_per_page);
}

}  // namespace troupe::TROUPE_ISA
