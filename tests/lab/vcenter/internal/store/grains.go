package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
)

// GrainBytes is how finely changes are told apart.
const GrainBytes = 64 << 10

// grain says what a disk held in one place at one time.
type grain struct {
	index uint32  // its place: counted from the start of the disk
	sum   [8]byte // zero when it held nothing but zeroes
}

// Area is a part of a disk, in bytes.
type Area struct{ Start, Length int64 }

// End is the first byte after the area.
func (a Area) End() int64 { return a.Start + a.Length }

// scan reads all grains of a file that are not hole.
func scan(path string) ([]grain, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	var found []grain
	next, buffer := int64(0), make([]byte, GrainBytes)
	err = eachData(file, info.Size(), func(start, end int64) error {
		// A grain can hold the end of one piece of data and the start of the next.
		for next = max(next, start/GrainBytes*GrainBytes); next < end; next += GrainBytes {
			content := buffer[:min(GrainBytes, info.Size()-next)]
			if _, err := file.ReadAt(content, next); err != nil {
				return err
			}
			found = append(found, grain{index: uint32(next / GrainBytes), sum: sumOf(content)})
		}
		return nil
	})
	return found, err
}

var (
	zeroes     [GrainBytes]byte
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// sumOf is two checksums of different kind, which together miss a change by a
// chance of one in 2^64. Processors have instructions for both: a gibibyte takes
// some tenths of a second, ten times less than a hash against attackers, who are not here.
func sumOf(content []byte) (sum [8]byte) {
	if bytes.Equal(content, zeroes[:len(content)]) {
		return sum
	}
	binary.BigEndian.PutUint32(sum[:4], crc32.Checksum(content, castagnoli))
	binary.BigEndian.PutUint32(sum[4:], crc32.ChecksumIEEE(content))
	return sum
}

// differing are the places where two points in time differ. A hole and
// zeroes are the same.
func differing(before, after []grain) []uint32 {
	var places []uint32
	for len(before) > 0 || len(after) > 0 {
		var was, is grain
		switch {
		case len(after) == 0 || (len(before) > 0 && before[0].index < after[0].index):
			was, before = before[0], before[1:]
			is.index = was.index
		case len(before) == 0 || after[0].index < before[0].index:
			is, after = after[0], after[1:]
		default:
			was, before = before[0], before[1:]
			is, after = after[0], after[1:]
		}
		if was.sum != is.sum {
			places = append(places, is.index)
		}
	}
	return places
}

// written are the places that are not hole.
func written(grains []grain) []uint32 {
	places := make([]uint32, len(grains))
	for i, grain := range grains {
		places[i] = grain.index
	}
	return places
}

// areas joins neighbouring places of a disk.
func areas(places []uint32, capacity int64) []Area {
	var joined []Area
	for _, place := range places {
		start := int64(place) * GrainBytes
		length := min(GrainBytes, capacity-start)
		if last := len(joined) - 1; last >= 0 && joined[last].End() == start {
			joined[last].Length += length
			continue
		}
		joined = append(joined, Area{start, length})
	}
	return joined
}

// grainsForm is how a file of grains begins; after it each grain has its
// place (4 bytes, the highest first) and its sum (8 bytes).
const (
	grainsForm  = "grains of 64 KiB, 1\n"
	grainLength = 12
)

func encode(grains []grain) []byte {
	text := make([]byte, 0, len(grainsForm)+len(grains)*grainLength)
	text = append(text, grainsForm...)
	for _, grain := range grains {
		text = binary.BigEndian.AppendUint32(text, grain.index)
		text = append(text, grain.sum[:]...)
	}
	return text
}

func decode(text []byte) ([]grain, error) {
	text, ok := bytes.CutPrefix(text, []byte(grainsForm))
	if !ok || len(text)%grainLength != 0 {
		return nil, errors.New("it is no list of grains")
	}
	grains := make([]grain, len(text)/grainLength)
	for i := range grains {
		grains[i].index = binary.BigEndian.Uint32(text[i*grainLength:])
		copy(grains[i].sum[:], text[i*grainLength+4:])
	}
	return grains, nil
}
