// Names that mean something else in Python or in a stub, a schema that includes another, constants, and a service.

include "events.thrift"

namespace py odd

enum Day {
  MONDAY = 1,
  str = 2,
}

struct Any {
  1: optional string Any,
  2: optional list<Any> tuple,
  3: optional map<string, i64> dict,
  4: optional set<i32> frozenset,
  5: optional binary bytes,
  6: optional string str,
  7: optional i32 int,
  8: optional double float,
  9: optional bool True_,
  10: optional Day Day,
  11: optional events.Geo Geo,
  12: optional events.Kind property,
  13: optional string _builtins,
}

struct Point {
  1: optional i32 property,
  2: optional Any Exception,
  3: optional string classmethod,
} (python.immutable = "")

exception Exception {
  1: required string object,
}

struct Included {
  1: required events.Event event,
  2: optional list<events.Kind> kinds,
  3: optional map<events.Kind, list<Day>> days,
  4: i32 number,
}

const i32 NUMBER = 3
const string TEXT = "text"
const list<i64> NUMBERS = [1, 2]
const list<string> NOTHING = []
const map<string, list<double>> TABLE = {"a": [1.5]}
const set<string> WORDS = ["a"]
const events.Geo HERE = {"country": "NL"}
const Day FIRST = Day.MONDAY
const bool YES = true

service Odd {
  Point ask(1: Any question) throws (1: Exception problem),
}
