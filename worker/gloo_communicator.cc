#include "worker/gloo_communicator.h"

#include <gloo/transport/context.h>
#include <gloo/transport/pair.h>
#include <gloo/transport/tcp/device.h>
#include <gloo/transport/unbound_buffer.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_util.h"
#include "worker/mesh_communicator.h"
#include "worker/stall_watch.h"
#include "worker/wait_chain.h"

namespace troupe {
namespace {

namespace tcp = gloo::transport::tcp;
using gloo::transport::UnboundBuffer;

// Gloo's own time limits close connections without a word; StallWatch keeps ours.
constexpr std::chrono::hours kNoLimit(24 * 365);
// For a few bytes to be on their way.
constexpr std::chrono::milliseconds kMoment(50);

// Slots tell the messages of a pair apart.
constexpr uint64_t kWordSlot = 0;
constexpr uint64_t kProbeSlot = 1;
constexpr uint64_t kFirstGroupSlot = 2;

// Gloo reports by exceptions, which stop here.
template <class Action>
absl::Status Try(const Action& action) {
  try {
    action();
    return absl::OkStatus();
  } catch (const std::exception& e) {
    return absl::UnavailableError(e.what());
  }
}

// Gloo writes to sockets as if they were files: one whose other end is gone would end the process.
void IgnorePipeSignals() {
  struct sigaction now = {};
  if (sigaction(SIGPIPE, nullptr, &now) == 0 && now.sa_handler == SIG_DFL) {
    signal(SIGPIPE, SIG_IGN);
  }
}

size_t At(int peer) { return peer * sizeof(Word); }

class GlooMesh final : public Mesh {
 public:
  static absl::StatusOr<std::shared_ptr<Mesh>> Connect(const GlooOptions& options,
                                                       Meeting& meeting);
  ~GlooMesh() override;
  GlooMesh(const GlooMesh&) = delete;
  GlooMesh& operator=(const GlooMesh&) = delete;

  int rank() const override { return options_.rank; }
  int size() const override { return options_.size; }
  void Exchange(uint64_t slot, absl::Span<const Transfer> sends,
                absl::Span<const Transfer> receives) override;

 private:
  struct Pending {
    int peer = 0;
    bool receives = false;
    std::unique_ptr<UnboundBuffer> buffer;

    void Abort() const { receives ? buffer->abortWaitRecv() : buffer->abortWaitSend(); }
    // False: aborted.
    bool Wait() const { return receives ? buffer->waitRecv(kNoLimit) : buffer->waitSend(kNoLimit); }
  };

  explicit GlooMesh(const GlooOptions& options);

  absl::Status ConnectPairs(Meeting& meeting);
  void StartWatching();
  absl::Status Post(uint64_t slot, const Transfer& transfer, bool receives);
  absl::Status PostAll(uint64_t slot, absl::Span<const Transfer> transfers, bool receives);
  void Await(const Pending& pending);
  // An operation with this peer failed. Returns `why`.
  absl::Status Lose(int peer, const absl::Status& why);
  // For last words, and for connections that close without one.
  void ListenForWords();
  void OnWord(int peer);
  // A question or an answer, after which another word may come.
  void OnTalk(int peer, Word word);
  // Some connection is closed: trips the latch with the member to blame, unless it said it left.
  void BlameClosedPairs(absl::string_view what);
  // Trips the latch; the others will be told `word`.
  void Blame(Word word, const absl::Status& reason);
  void OnStall(int peer);
  void OnTrip();
  void SayLastWord(Word word);
  bool IsClosed(int peer);
  std::string Name(int peer) const { return absl::StrCat("rank ", peer, " of ", options_.size); }
  template <class Visit>
  void ForEachPeer(const Visit& visit) const {
    for (int peer = 0; peer < options_.size; ++peer) {
      if (peer != options_.rank) visit(peer);
    }
  }

  const GlooOptions options_;
  uint64_t listener_ = 0;
  std::shared_ptr<gloo::transport::Context> context_;

  // Gloo writes words_[p] when member p says a word.
  std::vector<Word> words_;
  std::unique_ptr<UnboundBuffer> words_buffer_;
  Word own_word_;  // the last
  std::unique_ptr<UnboundBuffer> own_word_buffer_;
  // To each member, a question and the answer to its own. Never waited for: a wait with a time
  // limit would close the connections.
  std::vector<Word> asks_;
  std::unique_ptr<UnboundBuffer> asks_buffer_;
  std::vector<Word> answers_;
  std::unique_ptr<UnboundBuffer> answers_buffer_;
  char probe_ = 0;
  std::unique_ptr<UnboundBuffer> probe_buffer_;

  std::mutex mutex_;
  // All below are guarded by mutex_, except that the operation's own thread reads `pending_`.
  std::vector<Pending> pending_;
  bool said_ = false;  // our last word
  Word blame_;         // why the latch tripped

  WaitChain chain_;
  std::unique_ptr<StallWatch> watch_;
  std::thread words_thread_;
};

GlooMesh::GlooMesh(const GlooOptions& options)
    : options_(options),
      words_(options.size),
      asks_(options.size, Word(Word::kAsk, -1)),
      answers_(options.size),
      chain_(options.rank, options.size, PatienceFor(options.timeout), [this](int peer) {
        const auto ask = [&] { asks_buffer_->send(peer, kWordSlot, At(peer), sizeof(Word)); };
        return Try(ask).ok();
      }) {}

absl::StatusOr<std::shared_ptr<Mesh>> GlooMesh::Connect(const GlooOptions& options,
                                                        Meeting& meeting) {
  IgnorePipeSignals();
  auto mesh = std::shared_ptr<GlooMesh>(new GlooMesh(options));
  tcp::attr attr;
  attr.hostname = options.host;
  std::shared_ptr<gloo::transport::Device> device;
  const absl::Status made = Try([&] { device = tcp::CreateDevice(attr); });
  if (!made.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("host: found \"", options.host,
                     "\", wanted a name or address of this machine: ", made.message()));
  }
  mesh->context_ = device->createContext(options.rank, options.size);
  // Gloo multiplies it by five to connect.
  mesh->context_->setTimeout(
      std::chrono::milliseconds(absl::ToInt64Milliseconds(options.connect_timeout) / 5 + 1));
  TROUPE_RETURN_IF_ERROR(mesh->ConnectPairs(meeting));
  TROUPE_RETURN_IF_ERROR(Try([&] { mesh->StartWatching(); }));
  return mesh;
}

absl::Status GlooMesh::ConnectPairs(Meeting& meeting) {
  // Handed in: for each peer the address where this member waits for it, of one size.
  std::string mine;
  size_t each = 0;
  TROUPE_RETURN_IF_ERROR(Try([&] {
    ForEachPeer([&](int peer) {
      const std::vector<char> bytes = context_->createPair(peer)->address().bytes();
      each = bytes.size();
      mine.resize(options_.size * each);
      std::copy(bytes.begin(), bytes.end(), mine.begin() + static_cast<ptrdiff_t>(peer * each));
    });
  }));
  TROUPE_ASSIGN_OR_RETURN(const std::vector<std::string> all, meeting.Exchange(std::move(mine)));
  CHECK_EQ(static_cast<int>(all.size()), options_.size);
  for (int peer = 0; peer < options_.size; ++peer) {
    if (peer == options_.rank) continue;
    if (all[peer].size() != options_.size * each) {
      return absl::FailedPreconditionError(
          absl::StrCat("rank ", peer, ": found ", all[peer].size(), " bytes of addresses, wanted ",
                       options_.size * each, "; run one version of the worker everywhere"));
    }
    const auto begin = all[peer].begin() + static_cast<ptrdiff_t>(options_.rank * each);
    const std::vector<char> bytes(begin, begin + static_cast<ptrdiff_t>(each));
    const absl::Status connected = Try([&] { context_->getPair(peer)->connect(bytes); });
    if (!connected.ok()) {
      return absl::UnavailableError(absl::StrCat("rank ", peer, " cannot be reached from ",
                                                 options_.host, ": ", connected.message()));
    }
  }
  return absl::OkStatus();
}

void GlooMesh::StartWatching() {
  const auto buffer_of = [&](auto& words) {
    return context_->createUnboundBuffer(words.data(), words.size() * sizeof(Word));
  };
  words_buffer_ = buffer_of(words_);
  asks_buffer_ = buffer_of(asks_);
  answers_buffer_ = buffer_of(answers_);
  own_word_buffer_ = context_->createUnboundBuffer(&own_word_, sizeof(own_word_));
  probe_buffer_ = context_->createUnboundBuffer(&probe_, sizeof(probe_));
  ForEachPeer([&](int peer) { words_buffer_->recv(peer, kWordSlot, At(peer), sizeof(Word)); });
  watch_ = std::make_unique<StallWatch>(options_.timeout, [this](int peer) { OnStall(peer); });
  words_thread_ = std::thread([this] { ListenForWords(); });
  listener_ = latch_.Listen([this] { OnTrip(); });
}

GlooMesh::~GlooMesh() {
  latch_.Forget(listener_);
  if (watch_ != nullptr) watch_->Stop();
  if (words_thread_.joinable()) {
    SayLastWord({Word::kLeft, options_.rank});
    words_buffer_->abortWaitRecv();
    words_thread_.join();
  }
}

void GlooMesh::ListenForWords() {
  int peer = 0;
  bool heard = true;
  while (heard) {
    const absl::Status waited = Try([&] { heard = words_buffer_->waitRecv(&peer, kNoLimit); });
    if (!waited.ok()) {
      // The buffer stays in that state. Who leaves from now on shows in operations.
      BlameClosedPairs(waited.message());
      return;
    }
    // Gloo says who spoke last, not how many did.
    if (heard) ForEachPeer([this](int p) { OnWord(p); });
  }
}

void GlooMesh::OnWord(int peer) {
  const Word word = words_[peer];
  if (word.kind() == Word::kAsk || word.kind() == Word::kWaits) return OnTalk(peer, word);
  // Who has left may have done its part: its closed connection shows what it has not.
  if (word.kind() == Word::kNone || word.kind() == Word::kLeft) return;
  const std::string who = Name(word.whom());
  Blame(word, word.kind() == Word::kLate
                  ? absl::DeadlineExceededError(
                        absl::StrCat(who, " did not come in time, says rank ", peer))
                  : absl::UnavailableError(absl::StrCat(who, " is lost, says rank ", peer)));
}

void GlooMesh::OnTalk(int peer, Word word) {
  words_[peer] = Word();
  Try([&] { words_buffer_->recv(peer, kWordSlot, At(peer), sizeof(Word)); }).IgnoreError();
  if (word.kind() == Word::kAsk) {
    answers_[peer] = Word(Word::kWaits, watch_->waits_for());
    Try([&] { answers_buffer_->send(peer, kWordSlot, At(peer), sizeof(Word)); }).IgnoreError();
    return;
  }
  chain_.OnAnswer(peer, word.whom());
}

bool GlooMesh::IsClosed(int peer) {
  // Only a closed pair refuses to wait for a message. It will never be sent one on this slot.
  return !Try([&] { probe_buffer_->recv(peer, kProbeSlot, 0, 0); }).ok();
}

void GlooMesh::BlameClosedPairs(absl::string_view what) {
  if (latch_.tripped()) return;
  int silent = -1;
  ForEachPeer([&](int peer) {
    if (!IsClosed(peer)) return;
    OnWord(peer);
    if (silent < 0 && words_[peer].kind() == Word::kNone) silent = peer;
  });
  if (silent < 0 || latch_.tripped()) return;
  Blame({Word::kLost, silent},
        absl::UnavailableError(absl::StrCat(Name(silent), " is lost: ", what)));
}

void GlooMesh::Blame(Word word, const absl::Status& reason) {
  {
    const std::lock_guard lock(mutex_);
    if (blame_.kind() == Word::kNone) blame_ = word;
  }
  latch_.Trip(reason);
}

void GlooMesh::OnStall(int peer) {
  const int culprit = chain_.Culprit(std::max(peer, 0));
  if (latch_.tripped()) return;
  Blame({Word::kLate, culprit},
        absl::DeadlineExceededError(absl::StrCat(Name(culprit), " did not come within ",
                                                 absl::FormatDuration(options_.timeout))));
}

void GlooMesh::OnTrip() {
  chain_.GiveUp();
  Word word;
  {
    const std::lock_guard lock(mutex_);
    word = blame_;
    for (const Pending& pending : pending_) pending.Abort();
  }
  // Given up by this member's own will.
  if (word.kind() == Word::kNone) word = {Word::kLost, options_.rank};
  SayLastWord(word);
}

void GlooMesh::SayLastWord(Word word) {
  {
    const std::lock_guard lock(mutex_);
    if (std::exchange(said_, true)) return;
  }
  own_word_ = word;
  std::vector<int> told;
  ForEachPeer([&](int peer) {
    const auto send = [&] { own_word_buffer_->send(peer, kWordSlot, 0, sizeof(Word)); };
    if (Try(send).ok()) told.push_back(peer);
  });
  for (size_t i = 0; i < told.size(); ++i) {
    // A failure concerns the one that it names, and the buffer for good.
    if (!Try([&] { own_word_buffer_->waitSend(kMoment); }).ok()) break;
  }
}

absl::Status GlooMesh::Post(uint64_t slot, const Transfer& transfer, bool receives) {
  auto buffer = context_->createUnboundBuffer(transfer.data, transfer.bytes);
  const absl::Status posted = Try([&] {
    if (receives) {
      buffer->recv(transfer.peer, slot);
    } else {
      buffer->send(transfer.peer, slot);
    }
  });
  pending_.push_back({transfer.peer, receives, std::move(buffer)});
  return posted;
}

absl::Status GlooMesh::PostAll(uint64_t slot, absl::Span<const Transfer> transfers, bool receives) {
  for (const Transfer& transfer : transfers) {
    if (transfer.bytes == 0) continue;
    absl::Status posted;
    {
      const std::lock_guard lock(mutex_);
      posted = Post(slot, transfer, receives);
    }
    if (!posted.ok()) return Lose(transfer.peer, posted);
  }
  return absl::OkStatus();
}

absl::Status GlooMesh::Lose(int peer, const absl::Status& why) {
  BlameClosedPairs(why.message());
  // Where nobody is to blame, the peer has said that it leaves.
  Blame({Word::kLost, peer}, absl::UnavailableError(absl::StrCat(Name(peer), " has left")));
  return why;
}

void GlooMesh::Await(const Pending& pending) {
  watch_->WaitFor(pending.peer);
  const absl::Status waited = Try([&] { pending.Wait(); });
  if (!waited.ok() && !latch_.tripped()) Lose(pending.peer, waited).IgnoreError();
}

void GlooMesh::Exchange(uint64_t slot, absl::Span<const Transfer> sends,
                        absl::Span<const Transfer> receives) {
  if (latch_.tripped()) return;
  watch_->Begin();
  absl::Status posted = PostAll(slot, receives, /*receives=*/true);
  if (posted.ok()) posted = PostAll(slot, sends, /*receives=*/false);
  for (const Pending& pending : pending_) {
    // What was aborted before it waited does not wait.
    if (!latch_.tripped()) Await(pending);
  }
  watch_->End();
  const std::lock_guard lock(mutex_);
  pending_.clear();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Communicator>> MakeGlooCommunicator(const GlooOptions& options,
                                                                   Meeting& meeting, Ops* ops) {
  TROUPE_ASSIGN_OR_RETURN(std::shared_ptr<Mesh> mesh, GlooMesh::Connect(options, meeting));
  return MakeMeshCommunicator(std::move(mesh), kFirstGroupSlot, ops);
}

}  // namespace troupe
