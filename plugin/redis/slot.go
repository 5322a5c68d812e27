package redis

import "strings"

const slotCount = 16384

// slotOf is the hash slot of a key: CRC-16 of what stands between the first
// '{' and the next '}', if that is anything, else of the whole key.
func slotOf(key string) int {
	if open := strings.IndexByte(key, '{'); open >= 0 {
		if length := strings.IndexByte(key[open+1:], '}'); length > 0 {
			key = key[open+1 : open+1+length]
		}
	}
	crc := uint16(0)
	for i := 0; i < len(key); i++ {
		crc = crc<<8 ^ crcTable[byte(crc>>8)^key[i]]
	}
	return int(crc) % slotCount
}

// crcTable is that of CRC-16/XMODEM, polynomial 0x1021.
var crcTable = makeCRCTable()

func makeCRCTable() [256]uint16 {
	var table [256]uint16
	for i := range table {
		crc := uint16(i) << 8
		for bit := 0; bit < 8; bit++ {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
		table[i] = crc
	}
	return table
}
