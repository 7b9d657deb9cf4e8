// Another rank's weights over gRPC: Worker.ReadWeights.
#ifndef TROUPE_WORKER_WEIGHT_PEER_CLIENT_H_
#define TROUPE_WORKER_WEIGHT_PEER_CLIENT_H_

#include <memory>
#include <string>

#include "worker/weight_peer.h"

namespace troupe {

// Dials when it is first asked. A call fails where the peer is slower than 4 MiB/s, 10 s after it
// should have begun, or breaks the connection.
std::unique_ptr<WeightPeer> DialWeightPeer(const std::string& name, const std::string& address);

}  // namespace troupe

#endif  // TROUPE_WORKER_WEIGHT_PEER_CLIENT_H_
