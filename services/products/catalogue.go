package products

// catalogue is sorted by id, which page and look-up rely on.
var catalogue = []product{
	{"p-1001", "Anvil, 25 kg", 14900},
	{"p-1002", "Bench vice", 8950},
	{"p-1003", "Block plane", 6400},
	{"p-1004", "Brace and bit set", 5275},
	{"p-1005", "Centre punch", 890},
	{"p-1006", "Cold chisel", 1150},
	{"p-1007", "Coping saw", 1495},
	{"p-1008", "Dividers", 2180},
	{"p-1009", "Dovetail saw", 4350},
	{"p-1010", "Drawknife", 3890},
	{"p-1011", "Engineer's square", 2760},
	{"p-1012", "Half-round file", 1320},
	{"p-1013", "Joiner's mallet", 2450},
	{"p-1014", "Marking gauge", 1980},
	{"p-1015", "Mortise chisel", 3120},
	{"p-1016", "Pin hammer", 1640},
	{"p-1017", "Plumb bob", 1275},
	{"p-1018", "Rasp", 2890},
	{"p-1019", "Sharpening stone", 3650},
	{"p-1020", "Shooting board", 4999},
	{"p-1021", "Spirit level", 2340},
	{"p-1022", "Spokeshave", 4125},
	{"p-1023", "Tap and die set", 7800},
	{"p-1024", "Tenon saw", 4590},
}
