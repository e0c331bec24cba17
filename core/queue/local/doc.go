// Package local is the queue of one gateway: an append-only log in segments, whose fsyncs
// all waiting commits share.
//
// It promises what [queue.Store] promises: a Commit that returned nil survives a power
// cut, one that returned an error never comes back. It knows nothing of what is in a
// message. It is safe for concurrent use; one goroutine writes.
//
// # Directory
//
//	lock                  held by the process that has the store open (flock)
//	00000001.log ...      segments, numbered in eight hexadecimal digits from 1
//	corrupt/              damaged pieces, each with a .reason file; never read again
//	cursors/NAME          how far a follower of the feed has come: segment (uint32),
//	                      offset (uint64), checksum of both (uint32)
//
// # Segment
//
// All numbers are little-endian, all checksums CRC-32C. A segment begins with a header of
// 64 bytes, written twice, so that a flipped bit costs nothing:
//
//	 0  magic "postern" and the format version, 2
//	 8  number of this segment              uint64
//	16  marker, random                      8 bytes
//	24  number of its predecessor, or 0     uint64
//	32  length of the predecessor that was synced, in bytes   uint64
//	40  1 if the predecessor ends there; 0 if more may be in its file   uint32
//	44  when it was made, in Unix seconds   uint64
//	52  zero                                8 bytes
//	60  checksum of the above               uint32
//
// It is synced, with its name, before the first frame is written. Replay reads a
// predecessor up to the given length and no further: what follows was refused to its
// client. After a failed write or sync a segment is never written again, and the waiting
// clients learn of the failure when the header of the next segment, which makes it final,
// is durable. Opening and closing a store start a new segment too: so everything before
// it is known to be complete, and what is missing there is damage and not a torn tail.
//
// # Frame
//
// From offset 128 a segment is a row of frames, one a commit, all or nothing:
//
//	 0  marker of the segment: no mail body can forge a frame   8 bytes
//	 8  sequence number, growing through all segments   uint64
//	16  length of the payload               uint32
//	20  where the group begins that was synced with this frame; everything before it
//	    was durable when this was written   uint32
//	24  checksum of the payload             uint32
//	28  checksum of the above               uint32
//	32  payload: items
//
// An item is a type (1 byte), the length of its body (uint32), the body's checksum
// (uint32) and the body, which begins with its format version, 1 except where said:
//
//	add      id, name of the content file, first record of each recipient
//	message  version 2; the rest of the entry before it: family, time, class (1 byte),
//	         run, envelope, header, body, and how it is kept if that has been planned
//	result   id, recipient, its new record
//	mark     first 16 bytes of the SHA-256 of a key, time
//	move     as add, and replaces it: the entry was copied from an older segment
//
// encode.go has the fields. The class was once a flag, 0 or 1, that said copy: what older
// gateways wrote reads as mail and copies. Times are Unix nanoseconds (int64, the smallest for none),
// counts and lengths uvarints. A body above the spool's threshold is not in the log: the
// base name of its file is, with size and checksum, so a data directory can be moved.
//
// What is known of the client ends the envelope: the number of facts (uvarint), and for each
// its tag (1 byte), the length of its text, and the text; a number is a uvarint, the address
// 4 or 16 bytes and a zone. Facts that are empty or 0 are left out, unknown tags are skipped.
//
//	1 address     4 verified name   7 TLS        10 SASL mechanism
//	2 port        5 account         8 listener   11 name of the PTR record
//	3 HELO        6 protocol        9 class      12 connections
//
// # Versions
//
// Version 1 of message items had the facts in fixed places: address, port, then the strings 3
// to 8, then the class (1 byte). Both are read. Segments are of version 2 since they have
// message items of version 2: a gateway that does not know these does not open a directory
// with such a segment, and leaves it as it is. An older one that went on would set every
// message aside. To go back to it, have the newer one empty the queue, and move the directory
// away. A new fact of a client is a new tag, and no new version.
//
// # Reclaiming
//
// A segment is removed when nothing lives in it (entries, last records, marks), and every
// older segment with an entry whose end it records is gone, durably: else replay would see
// the entry without its end. When more than half of the log is dead the oldest segments
// are emptied, by copying what lives in them to the end of the log, a little at a time.
// Segments that a follower has yet to read wait for it, up to a limit.
// Content files are removed after the commit that ended their last entry is durable.
package local
