# Written by hand after the output of later Thrift compilers (py:type_hints,enum): write() validates, enums are written by
# their value, annotations stand on everything, and thrift_spec is None until the end of the module.
from __future__ import annotations

import sys
import typing
from enum import IntEnum

from thrift.Thrift import TType
from thrift.TRecursive import fix_spec
from thrift.protocol.TProtocol import TProtocolException

all_structs = []


class Kind(IntEnum):
    VIEW = 1
    VOTE = 2
    REPORT = 3


class Node(object):
    thrift_spec: typing.Any = None

    def __init__(self, name: typing.Optional[str] = None, kind: typing.Optional[Kind] = None, kinds: typing.Optional[list[Kind]] = None, children: typing.Optional[list[Node]] = None,):
        self.name: typing.Optional[str] = name
        self.kind: typing.Optional[Kind] = kind
        self.kinds: typing.Optional[list[Kind]] = kinds
        self.children: typing.Optional[list[Node]] = children

    def read(self, iprot):
        iprot.readStructBegin()
        while True:
            (fname, ftype, fid) = iprot.readFieldBegin()
            if ftype == TType.STOP:
                break
            if fid == 1:
                self.name = iprot.readString()
            elif fid == 2:
                self.kind = Kind(iprot.readI32())
            elif fid == 3:
                self.kinds = []
                (_etype3, _size0) = iprot.readListBegin()
                for _i4 in range(_size0):
                    _elem5 = Kind(iprot.readI32())
                    self.kinds.append(_elem5)
                iprot.readListEnd()
            elif fid == 4:
                self.children = []
                (_etype9, _size6) = iprot.readListBegin()
                for _i10 in range(_size6):
                    _elem11 = Node()
                    _elem11.read(iprot)
                    self.children.append(_elem11)
                iprot.readListEnd()
            else:
                iprot.skip(ftype)
            iprot.readFieldEnd()
        iprot.readStructEnd()

    def write(self, oprot):
        self.validate()
        if oprot._fast_encode is not None and self.thrift_spec is not None:
            oprot.trans.write(oprot._fast_encode(self, [self.__class__, self.thrift_spec]))
            return
        oprot.writeStructBegin('Node')
        if self.name is not None:
            oprot.writeFieldBegin('name', TType.STRING, 1)
            oprot.writeString(self.name.encode('utf-8') if sys.version_info[0] == 2 else self.name)
            oprot.writeFieldEnd()
        if self.kind is not None:
            oprot.writeFieldBegin('kind', TType.I32, 2)
            oprot.writeI32(self.kind.value)
            oprot.writeFieldEnd()
        if self.kinds is not None:
            oprot.writeFieldBegin('kinds', TType.LIST, 3)
            oprot.writeListBegin(TType.I32, len(self.kinds))
            for iter12 in self.kinds:
                oprot.writeI32(iter12.value)
            oprot.writeListEnd()
            oprot.writeFieldEnd()
        if self.children is not None:
            oprot.writeFieldBegin('children', TType.LIST, 4)
            oprot.writeListBegin(TType.STRUCT, len(self.children))
            for iter13 in self.children:
                iter13.write(oprot)
            oprot.writeListEnd()
            oprot.writeFieldEnd()
        oprot.writeFieldStop()
        oprot.writeStructEnd()

    def validate(self):
        if self.name is None:
            raise TProtocolException(message='Required field name is unset!')
        return

    def __eq__(self, other):
        return isinstance(other, self.__class__) and self.__dict__ == other.__dict__

    def __ne__(self, other):
        return not (self == other)


all_structs.append(Node)
Node.thrift_spec = (
    None,  # 0
    (1, TType.STRING, 'name', 'UTF8', None, ),  # 1
    (2, TType.I32, 'kind', None, None, ),  # 2
    (3, TType.LIST, 'kinds', (TType.I32, None, False), None, ),  # 3
    (4, TType.LIST, 'children', (TType.STRUCT, [Node, None], False), None, ),  # 4
)
fix_spec(all_structs)
del all_structs
