// SPDX-License-Identifier: GPL-2.0-only
/*
 * btf [-b BASE] FILE: prints, as text to be compared, what BTF says of the
 * declarations that compat/include/vfio.h copies. FILE and BASE are ELF files
 * or raw BTF (/sys/kernel/btf). BASE is the kernel of a module; a module that
 * brings a base of its own (.BTF.base) needs none.
 *
 * A program of the build host, without libbpf or pahole, so that every machine
 * that can build the modules can compare them with its kernel. Both have the
 * same byte order, and 64 bits. Kinds of types that are newer than this program
 * are passed over where BTF says how long they are, which it does since 7.2.
 */
#include <elf.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum kind {
	VOID, INT, PTR, ARRAY, STRUCT, UNION, ENUM, FWD, TYPEDEF, VOLATILE,
	CONST, RESTRICT, FUNC, FUNC_PROTO, VAR, DATASEC, FLOAT, DECL_TAG,
	TYPE_TAG, ENUM64, NR_KINDS
};

#define INT_SIGNED	(1U << 24)

struct header {
	uint16_t magic;
	uint8_t version;
	uint8_t flags;
	uint32_t hdr_len;
	uint32_t type_off, type_len;
	uint32_t str_off, str_len;
	uint32_t layout_off, layout_len;	/* if hdr_len has room for them */
};

#define OLD_HEADER_LEN	offsetof(struct header, layout_off)

/* of the types of a kind: what follows, and what follows vlen() times */
struct layout {
	uint8_t info_bytes;
	uint8_t elem_bytes;
	uint8_t flags[2];
};

struct type {
	uint32_t name;
	uint32_t info;
	uint32_t ref;		/* a type, or a size */
	uint32_t more[];
};

struct btf {
	const struct btf *base;
	const char *strings;
	uint32_t str_len;
	const struct type **types;
	uint32_t nr_types;
	const struct layout *layouts;
	uint32_t nr_layouts;
};

static void __attribute__((format(printf, 1, 2), noreturn)) die(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(2);
}

static enum kind kind_of(const struct type *type)
{
	return type->info >> 24 & 0x7f;
}

static uint32_t vlen(const struct type *type)
{
	return type->info & 0xffffff;
}

/* 32-bit words that follow a type, or -1 */
static long more(const struct btf *btf, const struct type *type)
{
	const struct layout *layout;

	switch (kind_of(type)) {
	case VOID:
		return -1;
	case INT: case VAR: case DECL_TAG:
		return 1;
	case ARRAY:
		return 3;
	case STRUCT: case UNION: case DATASEC: case ENUM64:
		return 3 * vlen(type);
	case ENUM: case FUNC_PROTO:
		return 2 * vlen(type);
	default:
		if (kind_of(type) < NR_KINDS)
			return 0;
	}
	if (kind_of(type) >= btf->nr_layouts)
		return -1;
	layout = &btf->layouts[kind_of(type)];
	return (layout->info_bytes + (long)layout->elem_bytes * vlen(type)) / 4;
}

/* The number of the first type that is not the base's */
static uint32_t first_type(const struct btf *btf)
{
	return btf->base ? first_type(btf->base) + btf->base->nr_types : 1;
}

static const struct type *type_of(const struct btf *btf, uint32_t id)
{
	for (; id && btf; btf = btf->base)
		if (id >= first_type(btf)) {
			id -= first_type(btf);
			if (id < btf->nr_types)
				return btf->types[id];
			break;
		}
	die("type %u is not there: not the kernel of this module?", id);
}

static uint32_t strings_before(const struct btf *btf)
{
	return btf->base ? strings_before(btf->base) + btf->base->str_len : 0;
}

static const char *string(const struct btf *btf, uint32_t offset)
{
	for (; btf; btf = btf->base)
		if (offset >= strings_before(btf)) {
			offset -= strings_before(btf);
			if (offset < btf->str_len)
				return btf->strings + offset;
			break;
		}
	die("string %u is not there: not the kernel of this module?", offset);
}

static struct btf *parse(const char *name, const unsigned char *data, size_t len,
			 const struct btf *base)
{
	struct btf *btf = calloc(1, sizeof(*btf));
	struct header header = { 0 };
	const uint32_t *word, *end;
	size_t room = 0;

	if (!btf || len < OLD_HEADER_LEN)
		die("%s has no BTF that this program can read", name);
	memcpy(&header, data, OLD_HEADER_LEN);
	if (header.hdr_len >= sizeof(header) && len >= sizeof(header))
		memcpy(&header, data, sizeof(header));
	if (header.magic != 0xeb9f || header.hdr_len % 4 || header.type_off % 4 ||
	    (uint64_t)header.hdr_len + header.type_off + header.type_len > len ||
	    (uint64_t)header.hdr_len + header.str_off + header.str_len > len ||
	    (uint64_t)header.hdr_len + header.layout_off + header.layout_len > len ||
	    !header.str_len ||
	    data[header.hdr_len + header.str_off + header.str_len - 1])
		die("%s has no BTF that this program can read", name);
	btf->base = base;
	btf->strings = (const char *)data + header.hdr_len + header.str_off;
	btf->str_len = header.str_len;
	btf->layouts = (const void *)(data + header.hdr_len + header.layout_off);
	btf->nr_layouts = header.layout_len / sizeof(*btf->layouts);
	word = (const void *)(data + header.hdr_len + header.type_off);
	end = word + header.type_len / sizeof(*word);
	while (word < end) {
		const struct type *type = (const void *)word;
		long nr = end - word < 3 ? -1 : more(btf, type);

		if (nr < 0 || end - word < 3 + nr)
			die("%s has BTF of a kind that this program does not know", name);
		if (btf->nr_types == room) {
			room = room ? 2 * room : 1024;
			btf->types = realloc(btf->types, room * sizeof(*btf->types));
			if (!btf->types)
				die("no memory");
		}
		btf->types[btf->nr_types++] = type;
		word += 3 + nr;
	}
	return btf;
}

static const unsigned char *read_file(const char *name, size_t *len)
{
	unsigned char *data = NULL;
	FILE *file = fopen(name, "rb");
	size_t room = 0, n;

	if (!file)
		die("cannot open %s", name);
	*len = 0;
	do {
		if (*len == room) {
			room = room ? 2 * room : 1 << 20;
			data = realloc(data, room);
			if (!data)
				die("no memory");
		}
		n = fread(data + *len, 1, room - *len, file);
		*len += n;
	} while (n);
	if (ferror(file))
		die("cannot read %s", name);
	fclose(file);
	return data;
}

static const unsigned char *section(const unsigned char *data, size_t len, const char *name,
				    size_t *size)
{
	const Elf64_Ehdr *elf = (const void *)data;
	const Elf64_Shdr *headers, *names;
	unsigned char *copy;
	int i;

	if (elf->e_ident[EI_CLASS] != ELFCLASS64 || elf->e_shstrndx >= elf->e_shnum ||
	    elf->e_shoff > len || elf->e_shoff % 8 ||
	    elf->e_shoff + (uint64_t)elf->e_shnum * sizeof(*headers) > len)
		return NULL;
	headers = (const void *)(data + elf->e_shoff);
	names = &headers[elf->e_shstrndx];
	for (i = 0; i < elf->e_shnum; i++) {
		uint64_t at = names->sh_offset + headers[i].sh_name;

		if (at + strlen(name) >= len || strcmp((const char *)data + at, name))
			continue;
		*size = headers[i].sh_size;
		if (headers[i].sh_offset > len || *size > len - headers[i].sh_offset)
			return NULL;
		/* In a module it begins at any byte. */
		copy = malloc(*size + 1);
		if (!copy)
			die("no memory");
		return memcpy(copy, data + headers[i].sh_offset, *size);
	}
	return NULL;
}

static struct btf *load(const char *name, const struct btf *base)
{
	const unsigned char *data, *part;
	size_t len, size;

	data = read_file(name, &len);
	if (len >= sizeof(Elf64_Ehdr) && !memcmp(data, ELFMAG, SELFMAG)) {
		part = section(data, len, ".BTF.base", &size);
		if (part)
			base = parse(name, part, size, NULL);
		part = section(data, len, ".BTF", &size);
		if (!part)
			die("%s has no BTF", name);
	} else {
		part = data;
		size = len;
	}
	return parse(name, part, size, base);
}

static void print_type(const struct btf *btf, uint32_t id);

static void print_args(const struct btf *btf, const struct type *proto)
{
	uint32_t i;

	putchar('(');
	for (i = 0; i < vlen(proto); i++) {
		if (i)
			printf(", ");
		print_type(btf, proto->more[2 * i + 1]);
	}
	putchar(')');
}

static void print_type(const struct btf *btf, uint32_t id)
{
	const struct type *type, *to;

	if (!id) {
		printf("void");
		return;
	}
	type = type_of(btf, id);
	switch (kind_of(type)) {
	case PTR:
		to = type->ref ? type_of(btf, type->ref) : NULL;
		if (to && kind_of(to) == FUNC_PROTO) {
			print_type(btf, to->ref);
			printf(" (*)");
			print_args(btf, to);
			break;
		}
		print_type(btf, type->ref);
		printf(" *");
		break;
	case CONST:
		printf("const ");
		print_type(btf, type->ref);
		break;
	case VOLATILE:
		printf("volatile ");
		print_type(btf, type->ref);
		break;
	case RESTRICT: case TYPE_TAG:
		print_type(btf, type->ref);
		break;
	case STRUCT:
		printf("struct %s", string(btf, type->name));
		break;
	case FWD:
		printf("%s %s", type->info >> 31 ? "union" : "struct", string(btf, type->name));
		break;
	case UNION:
		printf("union %s", string(btf, type->name));
		break;
	case ENUM: case ENUM64:
		printf("enum %s", string(btf, type->name));
		break;
	case INT:
		/* compilers do not agree on the names of the others */
		if (type->ref == 1)
			printf("%s", string(btf, type->name));
		else
			printf("%c%u", type->more[0] & INT_SIGNED ? 's' : 'u', type->ref * 8);
		break;
	case TYPEDEF:
		printf("%s", string(btf, type->name));
		break;
	default:
		printf("kind %d", kind_of(type));
	}
}

/* Types are the module's own, or the kernel's if it was built in. */
static int find(const struct btf *btf, enum kind kind, const char *name)
{
	const struct type *type;
	uint32_t i, n, nr = 0;

	for (i = 0; i < btf->nr_types; i++) {
		type = btf->types[i];
		if (kind_of(type) != kind || strcmp(string(btf, type->name), name))
			continue;
		nr++;
		switch (kind) {
		case STRUCT:
			printf("struct %s, %u bytes\n", name, type->ref);
			for (n = 0; n < vlen(type); n++) {
				printf("\t%u %s: ", (type->more[3 * n + 2] & 0xffffff) / 8,
				       string(btf, type->more[3 * n]));
				print_type(btf, type->more[3 * n + 1]);
				putchar('\n');
			}
			break;
		case ENUM:
			printf("enum %s\n", name);
			for (n = 0; n < vlen(type); n++)
				printf("\t%s = %u\n", string(btf, type->more[2 * n]),
				       type->more[2 * n + 1]);
			break;
		default:
			print_type(btf, type_of(btf, type->ref)->ref);
			printf(" %s", name);
			print_args(btf, type_of(btf, type->ref));
			putchar('\n');
		}
	}
	return nr;
}

int main(int argc, char **argv)
{
	struct btf *btf, *base = NULL;

	if (argc == 4 && !strcmp(argv[1], "-b"))
		base = load(argv[2], NULL);
	else if (argc != 2)
		die("usage: btf [-b BASE] FILE");
	btf = load(argv[argc - 1], base);
	if (!find(btf, STRUCT, "vfio_iommu_driver_ops"))
		die("%s does not have struct vfio_iommu_driver_ops", argv[argc - 1]);
	find(btf, ENUM, "vfio_group_type");
	find(btf, FUNC, "vfio_register_iommu_driver");
	find(btf, FUNC, "vfio_unregister_iommu_driver");
	return 0;
}
