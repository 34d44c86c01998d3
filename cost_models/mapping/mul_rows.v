// Maps $mul to rows of paired partial products on carry chains and an adder tree, as vendor tools map a
// multiplier that is kept out of the DSP slices. Operands of up to 32 bits on the narrow side.
//
// Row i adds a * b[2i] and a * b[2i+1] * 2: both AND gates and the sum of one bit fit one LUT6_2. The last
// row of a signed b subtracts. A sign bit that is constant 0 (mixed signedness) is dropped.

(* techmap_celltype = "$mul" *)
module _qhw_mul_rows (A, B, Y);
  parameter A_SIGNED = 0;
  parameter B_SIGNED = 0;
  parameter A_WIDTH = 1;
  parameter B_WIDTH = 1;
  parameter Y_WIDTH = 1;
  parameter [A_WIDTH-1:0] _TECHMAP_CONSTMSK_A_ = 0;
  parameter [A_WIDTH-1:0] _TECHMAP_CONSTVAL_A_ = 0;
  parameter [B_WIDTH-1:0] _TECHMAP_CONSTMSK_B_ = 0;
  parameter [B_WIDTH-1:0] _TECHMAP_CONSTVAL_B_ = 0;
  input [A_WIDTH-1:0] A;
  input [B_WIDTH-1:0] B;
  output [Y_WIDTH-1:0] Y;

  localparam A_ZERO = (A_WIDTH > 1) && (_TECHMAP_CONSTMSK_A_[A_WIDTH-1] === 1'b1)
                                    && (_TECHMAP_CONSTVAL_A_[A_WIDTH-1] === 1'b0);
  localparam B_ZERO = (B_WIDTH > 1) && (_TECHMAP_CONSTMSK_B_[B_WIDTH-1] === 1'b1)
                                    && (_TECHMAP_CONSTVAL_B_[B_WIDTH-1] === 1'b0);
  localparam AW0 = A_WIDTH - (A_ZERO ? 1 : 0), AS0 = A_ZERO ? 0 : A_SIGNED;
  localparam BW0 = B_WIDTH - (B_ZERO ? 1 : 0), BS0 = B_ZERO ? 0 : B_SIGNED;

  // The wider operand is a: fewer rows.
  localparam SWAP = BW0 > AW0;
  localparam AW = SWAP ? BW0 : AW0, AS = SWAP ? BS0 : AS0;
  localparam BW = SWAP ? AW0 : BW0, BS = SWAP ? AS0 : BS0;
  wire [AW-1:0] a;
  wire [BW-1:0] b;
  generate
    if (SWAP) begin assign a = B[AW-1:0]; assign b = A[BW-1:0]; end
    else begin assign a = A[AW-1:0]; assign b = B[BW-1:0]; end
  endgenerate

  localparam ROWS = (BW + 1) / 2, RW = AW + 2, OW = AW + BW + 2;
  localparam LEAVES = ROWS <= 1 ? 1 : ROWS <= 2 ? 2 : ROWS <= 4 ? 4 : ROWS <= 8 ? 8 : 16;
  localparam HEIGHT = LEAVES == 1 ? 0 : LEAVES == 2 ? 1 : LEAVES == 4 ? 2 : LEAVES == 8 ? 3 : 4;
  wire [2*LEAVES*OW-1:0] node;  // a binary tree: node 1 is the root, node LEAVES + i is row i

  genvar i;
  generate
    for (i = 0; i < LEAVES; i = i + 1) begin : rows
      if (i < ROWS) begin : used
        localparam PAIR = (2*i + 1 < BW), NEGATIVE = (i == ROWS - 1) && (BS != 0);
        wire [RW-1:0] wide = {{2{(AS != 0) & a[AW-1]}}, a};
        wire [RW-1:0] low = wide & {RW{b[2*i]}};
        wire [RW-1:0] s, x, co;
        if (PAIR) begin : pair
          wire [RW-1:0] high = {wide[RW-2:0], 1'b0} & {RW{b[2*i+1]}};
          \$alu #(.A_SIGNED(0), .B_SIGNED(0), .A_WIDTH(RW), .B_WIDTH(RW), .Y_WIDTH(RW)) sum (
            .A(low), .B(high), .CI(NEGATIVE ? 1'b1 : 1'b0), .BI(NEGATIVE ? 1'b1 : 1'b0),
            .Y(s), .X(x), .CO(co));
          assign node[(LEAVES+i)*OW +: OW] = {{(OW-RW){((AS != 0) || NEGATIVE) & s[RW-1]}}, s};
        end else if (NEGATIVE) begin : negated
          \$alu #(.A_SIGNED(0), .B_SIGNED(0), .A_WIDTH(RW), .B_WIDTH(RW), .Y_WIDTH(RW)) sum (
            .A({RW{1'b0}}), .B(low), .CI(1'b1), .BI(1'b1), .Y(s), .X(x), .CO(co));
          assign node[(LEAVES+i)*OW +: OW] = {{(OW-RW){s[RW-1]}}, s};
        end else begin : single
          assign node[(LEAVES+i)*OW +: OW] = {{(OW-RW){low[RW-1]}}, low};
        end
      end else begin : unused
        assign node[(LEAVES+i)*OW +: OW] = 0;
      end
    end
    for (i = 1; i < LEAVES; i = i + 1) begin : tree
      localparam LEVEL = i < 2 ? 0 : i < 4 ? 1 : i < 8 ? 2 : 3, H = HEIGHT - LEVEL, SHIFT = 1 << H;
      localparam FIRST = (i - (1 << LEVEL)) * (1 << H), RIGHT = FIRST + (1 << (H - 1));
      if (RIGHT >= ROWS) begin : pass
        assign node[i*OW +: OW] = node[2*i*OW +: OW];
      end else begin : add
        localparam W = AW + 2*(1 << H) > OW ? OW : AW + 2*(1 << H);
        wire [W-SHIFT-1:0] s, x, co;
        \$alu #(.A_SIGNED(0), .B_SIGNED(0), .A_WIDTH(W-SHIFT), .B_WIDTH(W-SHIFT), .Y_WIDTH(W-SHIFT)) sum (
          .A(node[2*i*OW+SHIFT +: W-SHIFT]), .B(node[(2*i+1)*OW +: W-SHIFT]), .CI(1'b0), .BI(1'b0),
          .Y(s), .X(x), .CO(co));
        wire sign = ((AS != 0) || ((BS != 0) && (FIRST + (1 << H) >= ROWS))) & s[W-SHIFT-1];
        assign node[i*OW +: OW] = {{(OW-W){sign}}, s, node[2*i*OW +: SHIFT]};
      end
    end
  endgenerate

  assign Y = node[OW +: (Y_WIDTH < OW ? Y_WIDTH : OW)];
endmodule
