# SPDX-License-Identifier: GPL-2.0-only
# The modules for one kernel, in a NixOS configuration:
#   boot.extraModulePackages = [
#     (config.boot.kernelPackages.callPackage ./packaging/nix { })
#   ];
{ lib, stdenv, kernel, kernelModuleMakeFlags ? kernel.makeFlags }:

stdenv.mkDerivation {
  pname = "vfio-type1v3";
  version = "0.2-${kernel.version}";

  src = lib.cleanSource ../..;

  hardeningDisable = [ "pic" "format" ];
  nativeBuildInputs = kernel.moduleBuildDependencies;

  postPatch = "patchShebangs compat/check-ops.sh";
  # what the build compares its declaration with, see compat/check-ops.sh
  VMLINUX = "${kernel.dev}/vmlinux";
  makeFlags = kernelModuleMakeFlags ++ [
    "KDIR=${kernel.dev}/lib/modules/${kernel.modDirVersion}/build"
    "KERNEL_MODULES=${kernel}/lib/modules/${kernel.modDirVersion}"
    "INSTALL_MOD_PATH=${placeholder "out"}"
  ];
  buildFlags = [ "modules" ];
  installTargets = [ "modules_install" ];

  meta = {
    description = "Page-granular DMA mapping for VFIO containers";
    license = lib.licenses.gpl2Only;
    platforms = lib.platforms.linux;
  };
}
