// Package mime finds the parts of a message and keeps their places, so that parts can be
// read, cut out or replaced while every other byte stays as it is.
//
// [Walk] reads a message once, from its start to its end, whatever its size, and returns a
// [Tree] of [Part]s: the header of each as it stands, and the offsets at which its header
// and its body begin and at which it ends. Contents are read afterwards, in pieces, from
// the message ([Tree.Raw], [Tree.Decoded], [Tree.Text]); [Tree.Rewrite] copies the body
// with some ranges replaced.
//
// What it promises:
//
//   - Work is linear in the size of the message and memory is bounded by [Limits],
//     whatever the message is. Nothing recurses over nested parts.
//   - No message is an error: each has a tree, if only that of a single part. Errors are
//     those of reading the body.
//   - Offsets are those of the body of the message, from 0; the root's header is the
//     message's own. Ranges of siblings do not overlap and children lie within their
//     parent.
//   - Where readers of mail disagree about what a message says, the [Defect]s say so. A
//     caller that decides about contents has to look at them: either it looks at every
//     interpretation ([Part.Names] gives all of a name), or it knows that there are others.
//   - Parts are looked for in the bytes of the message as they stand. What is in
//     base64 or quoted-printable is not decoded to find parts; a caller that wants those of
//     an encoded message walks what [Tree.Decoded] gives as a message of its own.
//
// What it refuses to know: what parts are for, which of them is harmful, and how to make a
// message. It keeps nothing and starts nothing. A Tree does not change and is safe for
// concurrent use as long as the message is there.
package mime
