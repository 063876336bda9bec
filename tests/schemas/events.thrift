// The one schema that every shape of generated class under this folder is made from.

namespace py events

enum Kind {
  VIEW = 1,
  VOTE = 2,
  REPORT = 3,
}

typedef i64 Millis
typedef map<string, i64> Counters

// A small event: five fields, about 145 bytes.
struct Event {
  1: optional string source,
  2: optional string action,
  3: optional string noun,
  4: optional double client_timestamp,
  5: optional string uuid,
}

struct Geo {
  1: optional string country,
  2: optional double latitude,
  3: optional double longitude,
}

struct User {
  1: optional i64 id,
  2: optional string name,
  3: optional bool logged_in,
  4: optional Geo geo,
  5: optional list<string> roles,
}

struct Impression {
  1: optional string id,
  2: optional i32 position,
  3: optional double score,
}

// A rich event: nested structs, maps, lists, sets, doubles and text beyond ASCII, about 724 bytes.
struct RichEvent {
  1: optional Event event,
  2: optional User user,
  3: optional Kind kind,
  4: optional list<Impression> impressions,
  5: optional map<string, string> labels,
  6: optional map<i32, double> timings,
  7: optional set<i32> experiments,
  8: optional Counters counts,
  9: optional string title,
}

// Every type alone and nested, in every position that JSON can carry.
struct Everything {
  1: optional bool flag,
  2: optional i8 tiny,
  3: optional i16 small,
  4: optional i32 medium,
  5: optional Millis large,
  6: optional double ratio,
  7: optional string text,
  8: optional binary blob,
  9: optional Kind kind,
  10: optional Geo geo,
  11: optional list<bool> flags,
  12: optional set<double> ratios,
  14: optional map<bool, i8> by_flag,
  15: optional map<i8, i16> by_tiny,
  16: optional map<double, string> by_ratio,
  17: optional map<Kind, Geo> by_kind,
  18: optional map<binary, binary> by_blob,
  19: optional list<list<map<string, set<i64>>>> deep,
  20: optional list<Kind> kinds,
  21: optional list<Geo> places,
  22: optional set<binary> blobs,
}

struct Defaults {
  1: required string name,
  2: i32 count = 3,
  3: optional list<string> tags = ["a", "b"],
  4: Kind kind = Kind.VOTE,
  7: required i64 id,
}

// Keys that JSON has no place for, unless the map is empty.
struct StructKeys {
  1: optional map<list<i32>, string> by_list,
  2: optional map<FrozenPoint, i32> by_point,
  3: optional Kind kind,
}

union Choice {
  1: string text,
  2: i64 number,
  3: Geo geo,
}

exception Refused {
  1: optional string message,
  2: optional i32 code,
}

// Structs that hold themselves: their thrift_spec is filled in late.
struct Tree {
  1: optional string label,
  2: optional list<Tree> children,
}

struct Ping {
  1: optional Pong pong,
}

struct Pong {
  1: optional map<string, Ping> pings,
}

struct Empty {
}

struct FrozenPoint {
  1: optional i32 x,
  2: optional i32 y,
} (python.immutable = "")

struct FrozenPath {
  1: required string name,
  2: optional list<FrozenPoint> points,
  3: optional map<string, FrozenPoint> marks,
} (python.immutable = "")

exception FrozenRefused {
  1: optional string message,
} (python.immutable = "")

// Negative field ids leave generated classes without a usable thrift_spec.
struct Negative {
  -2: optional string before,
  -1: optional i32 last,
  1: optional string after,
}
